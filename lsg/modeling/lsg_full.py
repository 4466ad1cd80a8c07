"""Full attention: of short sequences, of the global tokens, and of a decoder's cross-attention."""

import torch
from torch import Tensor
from torch.nn import functional

from .lsg_pattern import LSGPattern


def full_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    is_causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Every query (n, h, q, d) attends to all kept keys (n, h, k, d); causal queries are the last q positions."""
    q, k = query.shape[2], key.shape[2]
    mask = None if key_mask is None else key_mask[:, None, None]  # (n, 1, 1, k)
    if is_causal and q > 1:
        causal = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)
        mask = causal if mask is None else mask & causal
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)


def globals_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Give the output (n, h, g, d) of the globals, the first queries, which see all keys, or each other if causal."""
    g = pattern.num_global_tokens
    first = g if pattern.is_causal else None  # keys that a global may see
    seen = (key[:, :, :first], value[:, :, :first], None if key_mask is None else key_mask[:, :first])
    return full_attention(query[:, :, :g], *seen, pattern.is_causal, scaling, dropout)
