"""The attention alone, as layers and as a function, for tensors of any model. Same code as the converted models.

There are no learned global tokens here, but token 0 can be global. Shapes: n batch, h heads, t tokens, d head size.
Source: arXiv 2210.15497, section 3.
"""

import torch
from torch import Tensor, nn

from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_blocks import full_attention
from lsg.modeling.lsg_distance import Scoring
from lsg.modeling.lsg_pattern import LSGPattern


def to_key_mask(attention_mask: Tensor | None, num_keys: int) -> Tensor | None:
    """Return a mask as (n, keys) boolean, True where a key may be attended to; None if all may.

    Args:
        attention_mask: (n, 1, 1, keys), or (n, 1, queries, keys), of which only the last row is read: True or 0 to
            attend, False or a negative number (-inf, finfo.min) to mask.

    Raises:
        ValueError: another shape or dtype.
    """
    if attention_mask is None:
        return None
    shape = tuple(attention_mask.shape)
    if len(shape) != 4 or shape[1] != 1 or shape[3] != num_keys:
        raise ValueError(f"an attention_mask of shape (n, 1, 1 or t, {num_keys}) is expected, got {shape}")
    row = attention_mask[:, 0, -1]
    if row.dtype == torch.bool:
        return row
    if not row.is_floating_point():
        raise ValueError(f"a boolean or floating-point attention_mask is expected, got {row.dtype}")
    return row >= 0


def block_local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    pattern: LSGPattern | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return local (+ sparse) (+ global) attention.

    Args:
        query: (n, h, t, d). Fewer queries than keys are a step of generation: the last tokens, which attend to all.
        key, value: (n, h or a divisor of h, t, d); several query heads may share one (grouped queries).
        attention_mask: see `to_key_mask`.
        pattern: the sizes of the attention, LSGPattern(sparsity_type="none") by default. With `num_global_tokens` = 1
            token 0 is global: every query attends to it and, unless causal, it attends to all keys.
        scaling: factor of the scores, 1 / sqrt(d) by default.
        dropout: probability of dropping an attention weight.

    Returns:
        (n, h, t, d), zero where a query may attend to no key.

    Raises:
        ValueError: shapes that do not fit together, or more than one global.
    """
    pattern = LSGPattern(sparsity_type="none") if pattern is None else pattern
    if pattern.num_global_tokens > 1:
        raise ValueError(
            f"num_global_tokens={pattern.num_global_tokens} is not allowed: token 0 can be global, or none"
        )
    check_shapes(query, key, value)
    key_mask = to_key_mask(attention_mask, key.shape[2])
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    length = key.shape[2]
    if query.shape[2] < length or pattern.is_dense(length):
        scoring = Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, dropout)
        return full_attention(query, key, value, key_mask, pattern.is_causal, scoring)
    if pattern.num_global_tokens == 0:
        return lsg_attention(query, key, value, key_mask, pattern, scaling, dropout)
    # a copy of token 0 in front is the global token; token 0 itself is masked
    query, key, value = (torch.cat([x[:, :, :1], x], 2) for x in (query, key, value))
    key_mask = query.new_ones(len(query), length, dtype=torch.bool) if key_mask is None else key_mask
    key_mask = torch.cat([key_mask[:, :1], torch.zeros_like(key_mask[:, :1]), key_mask[:, 1:]], 1)
    output = lsg_attention(query, key, value, key_mask, pattern, scaling, dropout)
    return torch.cat([output[:, :, :1], output[:, :, 2:]], 2)


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ValueError unless the shapes of query, key and value fit together."""
    given = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if query.dim() != 4 or key.dim() != 4 or key.shape != value.shape:
        raise ValueError(f"query (n, h, t, d), key and value (n, h, t, d) alike are expected, got {given}")
    if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        raise ValueError(f"query and key need the same batch and head size, got {given}")
    if query.shape[1] % key.shape[1]:
        raise ValueError(f"the heads of query must be those of key or a multiple, got {given}")
    if query.shape[2] > key.shape[2]:
        raise ValueError(f"there cannot be more queries than keys, got {given}")


class LSGSelfAttention(nn.Module):
    """Local, sparse and global attention over given queries, keys and values; it has no weights.

    Args:
        block_size: tokens in a block.
        compute_global_attention: token 0 is global: every query attends to it and, unless causal, it attends to all.
        is_causal: a token attends only to itself and the tokens before it.
        attention_dropout_prob: probability of dropping an attention weight, in training only.
        sparsity_type: one of lsg.SPARSITY_TYPES, or None.
        sparsity_factor: tokens per sparse key.
        sparse_block_size: sparse keys on either side of the local blocks, `block_size` by default.
        lsh_num_pre_rounds, lsh_seed: see LSGPattern.

    Raises:
        ValueError: a number out of its bounds.
    """

    def __init__(
        self,
        block_size: int = 128,
        compute_global_attention: bool = True,
        is_causal: bool = False,
        attention_dropout_prob: float = 0.1,
        sparsity_type: str | None = "norm",
        sparsity_factor: int = 2,
        sparse_block_size: int | None = None,
        lsh_num_pre_rounds: int = 1,
        lsh_seed: int = 123,
    ) -> None:
        super().__init__()
        if not 0 <= attention_dropout_prob <= 1:
            raise ValueError(
                f"attention_dropout_prob={attention_dropout_prob} is not allowed: it must be within 0 and 1"
            )
        self.attention_dropout_prob = attention_dropout_prob
        self.pattern = LSGPattern(
            block_size=block_size,
            sparse_block_size=block_size if sparse_block_size is None else sparse_block_size,
            sparsity_factor=sparsity_factor,
            sparsity_type=sparsity_type,
            num_global_tokens=int(compute_global_attention),
            is_causal=is_causal,
            lsh_num_pre_rounds=lsh_num_pre_rounds,
            lsh_seed=lsh_seed,
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the attention; see `block_local_attention` for shapes and errors."""
        dropout = self.attention_dropout_prob if self.training else 0.0
        return block_local_attention(query, key, value, attention_mask, self.pattern, dropout=dropout)

    def extra_repr(self) -> str:
        """Return the sizes, for `print`."""
        return f"{self.pattern}, attention_dropout_prob={self.attention_dropout_prob}"


class BlockLocalSelfAttention(LSGSelfAttention):
    """LSGSelfAttention without sparse keys: a token attends to its own block and the neighbouring blocks.

    Args:
        block_size, compute_global_attention, is_causal, attention_dropout_prob: see LSGSelfAttention.
    """

    def __init__(
        self,
        block_size: int = 128,
        compute_global_attention: bool = True,
        is_causal: bool = False,
        attention_dropout_prob: float = 0.1,
    ) -> None:
        super().__init__(
            block_size, compute_global_attention, is_causal, attention_dropout_prob, "none", 1, sparse_block_size=0
        )
