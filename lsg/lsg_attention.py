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
from .lsg_full import full_attention
from .lsg_pattern import LSGPattern
from .lsg_walk import attend_walking

# name: function(query, key, value, keep, pattern, scaling, dropout) of a long sequence, see attend_blocks
BACKENDS: dict[str, Callable[..., Tensor]] = {"blocks": attend_blocks, "walk": attend_walking}


def lsg_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    pattern: LSGPattern,
    scaling: float | None = None,
    dropout: float = 0.0,
    backend: str = "walk",
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
    return BACKENDS[backend](query, key, value, keep, pattern, scaling, dropout)


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
