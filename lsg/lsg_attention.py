"""LSG attention: short sequences in full, long ones over blocks; registered with transformers as "lsg".

Definition: arXiv 2210.15497, section 3. Three parts are kept apart, so that each can be changed alone:
the pattern (`lsg_pattern`), the sparse selection (`lsg_sparse`) and the backends (`BACKENDS`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

from .lsg_blocks import attend_blocks
from .lsg_pattern import LSGPattern

# name: function(query, key, value, keep, pattern, scaling, dropout) of the tokens of a long sequence, see attend_blocks
BACKENDS: dict[str, Callable[..., Tensor]] = {"blocks": attend_blocks}


def lsg_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    pattern: LSGPattern,
    scaling: float | None = None,
    dropout: float = 0.0,
    backend: str = "blocks",
) -> Tensor:
    """LSG attention of one layer.

    Args:
        query, key, value: (n, h, g + t, d), the g globals first. Longer keys than queries are those of a cache:
            the queries are the last tokens and attend to everything cached, and to themselves causally.
        keep: (n, keys) boolean, False where a key may not be attended to; None if all may.
        pattern: the attention's numbers.
        scaling: factor of the scores, 1 / sqrt(d) by default.
        dropout: probability of dropping an attention weight.
        backend: a name in BACKENDS.

    Returns:
        (n, h, g + t, d), zero where a query may attend to nothing.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    g = pattern.num_global_tokens
    is_cached_step = key.shape[2] > query.shape[2]
    if is_cached_step or pattern.is_dense(key.shape[2] - g):
        return full_attention(query, key, value, keep, pattern.is_causal, scaling, dropout)
    tokens = BACKENDS[backend](query[:, :, g:], key, value, keep, pattern, scaling, dropout)
    if g == 0:
        return tokens
    first = g if pattern.is_causal else None  # keys that a global may see
    seen = (key[:, :, :first], value[:, :, :first], None if keep is None else keep[:, :first])
    return torch.cat([full_attention(query[:, :, :g], *seen, pattern.is_causal, scaling, dropout), tokens], 2)


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


def lsg_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Answer transformers' AttentionInterface for a layer whose `module.config` is an LSG config.

    `attention_mask` is what `lsg_mask` made, (n, t) boolean or None. A decoder's cross-attention, which is the
    only one there that is not causal, attends in full. Returns (n, q, h, d) and no attention weights.
    """
    pattern, keep = module.config.lsg_pattern(), attention_mask
    if pattern.is_causal and not module.is_causal:
        output = full_attention(query, key, value, keep, False, scaling, dropout)
    else:
        if keep is not None:
            keep = functional.pad(keep, (pattern.num_global_tokens, 0), value=True)  # globals are never masked
        output = lsg_attention(query, key, value, keep, pattern, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None


def lsg_mask(
    batch_size: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    config: PreTrainedConfig | None = None,
    **kwargs: object,
) -> Tensor | None:
    """Answer transformers' AttentionMaskInterface: the caller's (n, t) mask as booleans, None if nothing is masked.

    The pattern is not in it (it is `lsg_attention`'s), nor are the globals, which are never masked.
    """
    if attention_mask is None:
        return None
    keep = attention_mask.bool()
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # values cannot be asked for then
    return None if not is_traced and bool(keep.all()) else keep


AttentionInterface.register("lsg", lsg_attention_forward)
AttentionMaskInterface.register("lsg", lsg_mask)
