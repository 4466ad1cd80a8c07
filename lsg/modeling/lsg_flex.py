"""Backend "flex", for GPUs: one FlexAttention kernel over keys laid out as [tokens | sparse | globals].

The pattern is a mask in closed form, see `lsg_flex_mask`. Lengths are padded to a few sizes, so that texts of all
lengths share compiled kernels. What dropout keeps follows from a hash of the place, see `attend_with_dropout`. Same
definition as "blocks" (arXiv 2210.15497, section 3).

Shapes: n batch, h heads, t tokens, g globals and pinned tokens, d head size; T padded tokens, K all keys, padded.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import inf
from typing import Any

import torch
import torch._dynamo.config
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask

from .lsg_blocks import globals_attention, pinned_attention
from .lsg_distance import Scoring, bias_index, front_positions
from .lsg_flex_mask import make_mask, padded_length, tile_padding
from .lsg_pattern import LSGPattern
from .lsg_sparse import SparseKeys, pad_tokens, query_of_first_token, select_sparse

MAX_KERNELS = 256
MIN_HEAD_SIZE = 16  # the smallest that FlexAttention takes
DROPOUT_BITS = 24  # of the hash; the probability is rounded to so many
FlexKernel = Callable[..., tuple[Tensor, Any]]  # with the arguments and results of `run_flex`
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # of score, batch, head, query and key number


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return the attention of a long sequence; arguments and result are those of `attend_blocks`."""
    return attend_with(flex_kernel(query.device.type), (query, key, value), key_mask, pattern, scoring)


def attend_dense(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
    """Return what `attend_flex` does, without its kernels: all scores are formed, dropout keeps the same ones."""
    return attend_with(dense_flex, (query, key, value), *others)


def attend_with(
    kernel: FlexKernel,
    tensors: tuple[Tensor, Tensor, Tensor],
    key_mask: Tensor | None,
    pattern: LSGPattern,
    scoring: Scoring,
) -> Tensor:
    """Return what `attend_flex` does, by a kernel with the arguments and results of `run_flex`."""
    query, key, value = tensors
    g = pattern.num_front_tokens
    n, t = len(query), query.shape[2] - g
    padding = padded_length(t, pattern.block_size) - t
    queries, keys, values = (pad_tokens(x[:, :, g:], padding) for x in tensors)  # (n, h, T, d)
    if padding > 0 or key_mask is not None:
        key_mask = torch.ones(n, g + t, dtype=torch.bool, device=query.device) if key_mask is None else key_mask
        key_mask = functional.pad(key_mask, (0, padding))
    sparse = SparseKeys(
        keys[:, :, :0], values[:, :, :0], None, torch.zeros(1, 1, 0, dtype=torch.long, device=key.device)
    )
    if pattern.has_sparse:
        first_query = query_of_first_token(query, key_mask, pattern)
        sparse = select_sparse(first_query, keys, values, None if key_mask is None else key_mask[:, g:], pattern)
    end = tile_padding(sparse.key.shape[2] + g)
    score_mod = None
    if scoring.distance_bias is not None:
        front = front_positions(key_mask, pattern, key.device)[:, None]  # (n or 1, 1, g)
        positions = [torch.arange(t + padding, device=key.device)[None, None], sparse.position, front]
        score_mod = make_score_mod(scoring.distance_bias, positions, len(keys), end)
    keys = pad_tokens(torch.cat([keys, sparse.key, key[:, :, :g]], 2), end)  # (n, h, K, d)
    values = pad_tokens(torch.cat([values, sparse.value, value[:, :, :g]], 2), end)
    mask = make_mask(t + padding, key_mask, sparse, pattern, query.device)
    attend = partial(kernel, queries, keys, block_mask=mask, scale=scoring.scaling)
    if scoring.dropout > 0:
        output = attend_with_dropout(attend, values, score_mod, scoring.dropout)
    else:
        output, _ = attend(values, score_mod=score_mod)
    key_mask = None if key_mask is None else key_mask[:, : g + t]
    globals_ = globals_attention(query, key, value, key_mask, pattern, scoring)
    pinned = pinned_attention(query, key, value, key_mask, pattern, scoring)
    return torch.cat([globals_, pinned, output[:, :, :t]], 2)


def attend_with_dropout(attend: FlexKernel, value: Tensor, score_mod: ScoreMod | None, dropout: float) -> Tensor:
    """Return the output of attention some of whose weights are dropped, softmax first and dropout after it.

    With keep bits m and scores s, a kernel that sees the kept scores alone returns o' = sum(m e^s v) / sum(m e^s) and
    l' = log sum(m e^s); one that sees all, l = log sum(e^s). So o' exp(l' - l) / (1 - p) is what is asked for:
    sum(m e^s v) / sum(e^s) / (1 - p). Gradients run through both sums.

    Args:
        attend: `run_flex`, but for these arguments.
        value: (n, h, K, d)
        score_mod: what is added to the scores, if anything.
        dropout: p, rounded to DROPOUT_BITS bits.
    """
    steps = round(dropout * 2**DROPOUT_BITS)  # p in units of the hash
    keep = make_keep(draw_seed(value.device), torch.full((), steps, dtype=torch.int32, device=value.device))

    def kept_score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if score_mod is not None:
            score = score_mod(score, batch, head, query, key)
        return torch.where(keep(batch, head, query, key), score, -inf)

    narrow = value[..., :MIN_HEAD_SIZE].detach()  # of this call only the sum counts: the fewest values are the cheapest
    _, log_sum = attend(narrow, score_mod=score_mod, with_log_sum=True)  # (n, h, T)
    output, log_kept = attend(value, score_mod=kept_score, with_log_sum=True)
    kept_share = (log_kept - log_sum).masked_fill(log_kept == -inf, -inf).exp()  # of the sum; 0 if nothing is kept
    scale = 1 / (1 - steps / 2**DROPOUT_BITS or inf)
    return (output * (kept_share * scale)[..., None]).to(output.dtype)


def draw_seed(device: torch.device) -> Tensor:
    """Return a new number of 32 bits from the generator of the device: in a tensor, as torch would compile a number."""
    return torch.randint(-(2**31), 2**31, (), dtype=torch.int32, device=device)


def make_keep(seed: Tensor, threshold: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return which weights dropout keeps, a function of batch, head, query and key number.

    A weight is dropped if the lowest DROPOUT_BITS bits of a hash of the four and the seed are below the threshold. All
    is computed in 32 bits: forward and backward make the same mask again, and none is stored.
    """

    def keep(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = mix(mix(mix(seed ^ batch.int()) ^ head.int()) ^ query.int())
        return (mix(row ^ mix(~key.int())) & (2**DROPOUT_BITS - 1)) >= threshold

    return keep


def mix(x: Tensor) -> Tensor:
    """Return a hash of 32-bit integers, in which each bit depends on all bits of the argument.

    It turns x into (x ^ (x >> s)) m twice, and once more without a product; the numbers s and m are those with little
    bias that Chris Wellons found (https://nullprogram.com/blog/2018/07/31/). Shifts fill up with zeros.
    """
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def make_score_mod(table: Tensor, parts: list[Tensor], batch_size: int, padding: int) -> ScoreMod:
    """Return what adds a bias by distance to a score, a function of it and of batch, head, query and key number.

    Args:
        table: (h, 2D + 1), by head and distance.
        parts: positions of the keys, (n or 1, h or 1, some of the keys) each; the queries are the tokens.
        batch_size: n.
        padding: the number of keys behind them.
    """
    expanded = [part.expand(batch_size, len(table), -1) for part in parts]
    positions = functional.pad(torch.cat(expanded, 2), (0, padding))  # (n, h, K)

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table[head, bias_index(table, positions[batch, head, key] - query)]

    return add_bias


def run_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_mask: BlockMask,
    scale: float,
    score_mod: ScoreMod | None = None,
    with_log_sum: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return FlexAttention's output (n, h, T, d), and the logarithm (n, h, T) of the softmax's sum if asked for."""
    run: Any = partial(torch_flex.flex_attention, query, key, value, score_mod, block_mask, scale)
    if not with_log_sum:
        return run(), None
    if not hasattr(torch_flex, "AuxRequest"):  # before torch 2.9
        return run(return_lse=True)
    output, others = run(return_aux=torch_flex.AuxRequest(lse=True))
    return output, others.lse


@lru_cache
def flex_kernel(device_type: str) -> FlexKernel:
    """Return FlexAttention: compiled on a GPU, and as it is on a CPU, where it is run by tests only."""
    if device_type == "cpu":
        return run_flex
    return compile_flex("inductor")


def compile_flex(compiler: str | Callable[..., Any]) -> FlexKernel:
    """Return FlexAttention, compiled, with room for MAX_KERNELS kernels.

    After its limit of 8, for all models and dtypes of a process, torch would run it uncompiled, and form all scores.
    Training and evaluation, with and without padding, need as many already. DDP would cut the graph where parameters
    are, of which it has none; older releases refuse it instead.
    """
    compiled = torch.compile(run_flex, fullgraph=True, backend=compiler)
    return torch._dynamo.config.patch(cache_size_limit=MAX_KERNELS, optimize_ddp=False)(compiled)


def dense_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block_mask: BlockMask,
    scale: float,
    score_mod: ScoreMod | None = None,
    with_log_sum: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return what `run_flex` does, by FlexAttention's definition, all scores at once: kernels are compared with it."""
    sizes = *query.shape[:3], key.shape[2]
    numbers = (torch.arange(size, device=query.device) for size in sizes)
    places = [x.view([-1 if dim == place else 1 for dim in range(4)]) for place, x in enumerate(numbers)]
    query, key, wide = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value))
    scores = query @ key.transpose(2, 3) * scale
    if score_mod is not None:
        scores = score_mod(scores, *places)
    visible = block_mask.mask_mod(*places)
    scores = scores.masked_fill(~visible, -inf)
    weights = scores.softmax(-1).masked_fill(scores == -inf, 0)  # a row that sees nothing is zero
    return (weights @ wide).to(value.dtype), scores.logsumexp(-1)
