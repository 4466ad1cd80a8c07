"""LSG attention: short sequences in full, long ones over blocks; registered with transformers.

Definition: arXiv 2210.15497, section 3. Three parts are kept apart, so that each can be changed alone:
the pattern (`lsg_pattern`), the sparse selection (`lsg_sparse`) and the backends (`BACKENDS`).
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.utils import logging

from .lsg_blocks import attend_blocks, attend_short, full_attention, globals_attention
from .lsg_distance import Scoring, at_least_single, check_bias, make_scoring
from .lsg_flex import MIN_HEAD_SIZE, attend_dense, attend_flex
from .lsg_packing import Packing
from .lsg_pattern import EARLIER_NAMES, MAX_GLOBAL_TOKENS, LSGPattern
from .lsg_pinned import MaskSubstitute, PinnedMask
from .lsg_sparse import is_traced
from .lsg_tiled import attend_tiled

logger = logging.get_logger(__name__)

MAX_FLEX_ERROR = 0.05  # rms / rms; bfloat16 makes 0.01, and a forgotten tile of keys 0.1 and more

# name: function(query, key, value, key_mask, pattern, scoring) of a long sequence, see attend_blocks
BACKENDS: dict[str, Callable[..., Tensor]] = {"blocks": attend_blocks, "tiled": attend_tiled, "flex": attend_flex}


def lsg_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scaling: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    distance_bias: Tensor | None = None,
) -> Tensor:
    """LSG attention of one layer.

    Args:
        query, key, value: (n, h, g + P + t, d), the g globals first, then the P pinned tokens. If there are more keys
            than queries, (n, h, g + p + P + t, d), the p behind the globals are those of a cache. Causal queries attend
            to all of them, and to themselves causally. Otherwise they are a prefix, which every query attends to.
        key_mask: (n or 1, keys) boolean, False where a key may not be attended to; None if all may.
        pattern: the attention's numbers.
        scaling: factor of the scores, 1 / sqrt(d) by default.
        dropout: probability of dropping an attention weight.
        backend: a name in BACKENDS, or "auto", see `choose_backend`.
        distance_bias: (h, 2D + 1), what is added to the scaled scores of each head where the key stands -D, ..., D
            places behind the query, or further (see lsg_distance); None for nothing. Not for causal attention.

    Returns:
        (n, h, g + P + t, d), zero where a query may attend to nothing.
    """
    if distance_bias is not None:
        check_bias(distance_bias, query.shape[1], pattern)
        distance_bias = at_least_single(distance_bias)
    query, key, value = with_one_dtype(query, key, value)
    scoring = make_scoring(query, scaling, dropout, distance_bias)
    key_mask = None if key_mask is None else key_mask.expand(key.shape[0], -1)
    g, past = pattern.num_global_tokens, key.shape[2] - query.shape[2]  # what is cached stands behind the globals
    if past > 0 and pattern.is_causal:
        return cached_attention(query, key, value, key_mask, pattern, scoring)
    serves_all_lengths = is_traced() and backend in ("auto", "blocks")  # nothing in their graph depends on the length
    if not serves_all_lengths and pattern.is_dense(query.shape[2] - pattern.num_front_tokens):
        return attend_short(query, key, value, key_mask, pattern, scoring)
    if past > 0:
        query, pattern = with_queries_for_prefix(query, past, pattern)
    backend = choose_backend(query, scoring) if backend == "auto" else EARLIER_NAMES.get(backend, backend)
    output = BACKENDS[backend](query, key, value, key_mask, pattern, scoring)
    return output if past == 0 else torch.cat([output[:, :, :g], output[:, :, g + past :]], 2)


def with_one_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value; under autocast in its dtype, as torch's own attention does, if theirs differ.

    Rotary positions leave queries and keys in single precision there, and values in half.
    """
    device_type = query.device.type
    if query.dtype == key.dtype == value.dtype or not torch.is_autocast_enabled(device_type):
        return query, key, value
    dtype = torch.get_autocast_dtype(device_type)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, pattern: LSGPattern, scoring: Scoring
) -> Tensor:
    """Causal attention of tokens that continue a cache: in full; arguments and result are those of `lsg_attention`."""
    globals_ = globals_attention(query, key, value, key_mask, pattern, scoring)
    tokens = query[:, :, pattern.num_global_tokens :]
    return torch.cat([globals_, full_attention(tokens, key, value, key_mask, True, scoring)], 2)


def with_queries_for_prefix(query: Tensor, length: int, pattern: LSGPattern) -> tuple[Tensor, LSGPattern]:
    """Return query and pattern with the p keys behind the globals as further globals; their queries are zeros.

    Raises:
        ValueError: globals and prefix together are more than an attention may have.
    """
    g = pattern.num_global_tokens
    if g + length > MAX_GLOBAL_TOKENS:
        raise ValueError(
            f"a prefix of {length} keys is not allowed: with {g} global tokens it can have {MAX_GLOBAL_TOKENS - g}"
        )
    unused = query.new_zeros(*query.shape[:2], length, query.shape[3])
    query = torch.cat([query[:, :, :g], unused, query[:, :, g:]], 2)
    return query, replace(pattern, num_global_tokens=g + length)


def choose_backend(query: Tensor, scoring: Scoring) -> str:
    """Return the backend for a device: "tiled" on a CPU, "flex" on a GPU where it works, else "blocks".

    Code that is traced, compiled or exported takes "blocks".
    """
    if is_traced():
        return "blocks"
    if query.device.type == "cpu":
        return "tiled"
    fits = query.device.type == "cuda" and query.shape[-1] >= MIN_HEAD_SIZE
    has_bias, has_dropout = scoring.distance_bias is not None, scoring.dropout > 0
    kind = KernelKind(query.device, query.dtype, query.shape[-1], has_bias, has_dropout)
    return "flex" if fits and flex_works(kind) else "blocks"


class KernelKind(NamedTuple):
    """What decides which kernels "flex" compiles."""

    device: torch.device
    dtype: torch.dtype
    head_size: int
    has_bias: bool = False
    has_dropout: bool = False

    def __str__(self) -> str:
        others = ", with a bias" * self.has_bias + ", with dropout" * self.has_dropout
        return f"{self.device} ({self.dtype}, heads of {self.head_size}{others})"


@lru_cache
def flex_works(kind: KernelKind) -> bool:
    """Return whether "flex" computes what it should, forward and backward; if not, warn and say why.

    Tried once, at two lengths, as the second one makes torch compile kernels for any length, and with padding.
    """
    try:
        off = max(flex_error(kind, *case) for case in ((1024, False), (1280, False), (1500, True)))
    except Exception as error:  # noqa: BLE001 (any error of a compiler: "blocks" is used instead)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning(f'lsg_backend="flex" does not run on {kind}, "blocks" is used: {reason}')
        return False
    if not off < MAX_FLEX_ERROR:
        logger.warning(f'lsg_backend="flex" is off by {off:.0%} on {kind}, "blocks" is used')
    return off < MAX_FLEX_ERROR


@torch.inference_mode(False)  # the first call may be in inference mode
@torch.enable_grad()
def flex_error(kind: KernelKind, num_tokens: int, is_padded: bool) -> float:
    """Return by how much the output and gradients of "flex" differ from those of "blocks": rms / rms, the largest.

    With dropout they are compared with those of "flex" by a dense softmax in place of the compiled kernels: both drop
    the same weights. Whatever is on around the first call of a model is off: autocast, and activation checkpointing,
    which counts the tensors that are saved.
    """
    device, dtype, head_size, has_bias, has_dropout = kind
    pattern = LSGPattern(block_size=128, sparse_block_size=128, sparsity_factor=2)
    generator = torch.Generator().manual_seed(0)  # the caller's is left alone
    tensors = torch.randn(3, 2, 2, num_tokens + 1, head_size, generator=generator)
    bias = torch.randn(2, 257, generator=generator)
    key_mask = None
    if is_padded:
        key_mask = torch.ones(2, num_tokens + 1, dtype=torch.bool, device=device)
        key_mask[1, num_tokens // 2 :] = False

    def outputs(attend: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in tensors.unbind()]
        if has_bias:
            leaves.append(bias.to(device, copy=True).requires_grad_())
        scoring = Scoring(head_size**-0.5, 0.25 if has_dropout else 0.0, *leaves[3:])
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # each call drops the same weights
            output = attend(*leaves[:3], key_mask, pattern, scoring)
        return [x.detach().float() for x in (output, *torch.autograd.grad(output.float().square().sum(), leaves))]

    unchanged = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    with torch.autocast(device.type, enabled=False), unchanged:
        pairs = zip(outputs(BACKENDS["flex"]), outputs(attend_dense if has_dropout else attend_blocks), strict=True)
    return max(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).nan_to_num(inf).tolist())


def lsg_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Packing | PinnedMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    distance_bias: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Compute the attention of a layer whose `module.config` is an LSG config, for transformers' AttentionInterface.

    `attention_mask` is what `lsg_mask` returned: (n, t) boolean, None, a Packing of the rows, or a PinnedMask. The
    cross-attention of a decoder, the only one there that is not causal, attends in full. In a layer with a
    `sliding_window`, tokens attend to those less than so many places away, |q - k| < sliding_window, and to globals
    and pinned tokens: transformers hands on w + 1 where a token sees w others on either side. `distance_bias`: see
    `lsg_attention`. Returns (n, q, h, d) and no attention weights.
    """
    config: Any = module.config
    pattern = config.lsg_pattern()
    if (groups := query.shape[1] // key.shape[1]) > 1:  # each head of keys serves several of queries
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if sliding_window is not None:
        pattern = pattern.with_sliding_window(sliding_window)

    def attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, num_pinned: int = 0) -> Tensor:
        if key_mask is not None:  # globals are never masked
            key_mask = functional.pad(key_mask.to(query.device), (pattern.num_global_tokens, 0), value=True)
        numbers = replace(pattern, num_pinned_tokens=num_pinned) if num_pinned else pattern
        return lsg_attention(query, key, value, key_mask, numbers, scaling, dropout, config.lsg_backend, distance_bias)

    if isinstance(attention_mask, Packing):
        packed = (x.split(attention_mask.lengths, 2) for x in (query, key, value))
        rows = zip(*packed, attention_mask.key_masks, attention_mask.num_pinned, strict=True)
        output = torch.cat([attend(*row).transpose(1, 2) for row in rows], 1).transpose(1, 2)  # as it lies in memory
    elif isinstance(attention_mask, PinnedMask):
        output = attend(query, key, value, attention_mask.key_mask, attention_mask.num_places)
    elif pattern.is_causal and not module.is_causal:
        output = full_attention(query, key, value, attention_mask, False, make_scoring(query, scaling, dropout))
    else:
        output = attend(query, key, value, attention_mask)
    return output.transpose(1, 2).contiguous(), None


def lsg_mask(
    batch_size: int,
    kv_length: int,
    attention_mask: Tensor | MaskSubstitute | None = None,
    **kwargs: object,
) -> Tensor | MaskSubstitute | None:
    """Return the caller's (n, t) mask as booleans, None if nothing is masked, for transformers' AttentionMaskInterface.

    It has no columns for the globals, which are never masked; the pattern is up to `lsg_attention`.

    Raises:
        ValueError: a mask of another batch.
    """
    if attention_mask is None or isinstance(attention_mask, MaskSubstitute):
        return attention_mask
    if attention_mask.shape[0] != batch_size:
        given = tuple(attention_mask.shape)
        raise ValueError(f"an attention_mask of {batch_size} rows, as many as the batch has, is expected, got {given}")
    key_mask = attention_mask.bool()
    return None if not is_traced() and bool(key_mask.all()) else key_mask


# A process can hold several copies of this file: the package's, and one per checkpoint that is loaded with remote code.
# Each has a name of its own in transformers. (Without a mask function of that name, padding would be attended to.)
ATTENTION_NAME = f"lsg_{zlib.crc32(__name__.encode()):08x}"
AttentionInterface.register(ATTENTION_NAME, lsg_attention_forward)
AttentionMaskInterface.register(ATTENTION_NAME, lsg_mask)
