"""Full attention: of short sequences, of the global tokens, and of a decoder's cross-attention."""

import torch
from torch import Tensor
from torch.nn import functional


def full_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    is_causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Every query (n, h, q, d) attends to all kept keys (n, h, k, d); causal queries are the last q positions."""
    q, k = query.shape[2], key.shape[2]
    mask = None if keep is None else keep[:, None, None]  # (n, 1, 1, k)
    if is_causal and q > 1:
        causal = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)
        mask = causal if mask is None else mask & causal
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
