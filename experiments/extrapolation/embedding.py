"""Sentence embeddings of token ids, and how well they retrieve documents."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.extrapolation.masked_text import AROUND, special_token

BATCH_TOKENS = 4096  # per forward pass; at least one row


@torch.no_grad()
def embed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], on_rows: Callable[[int], Any]
) -> Tensor:
    """Return unit vectors of rows of token ids: the mean over the last hidden states, with start and end token.

    Args:
        on_rows: called with the number of tokens just read, without start and end tokens.

    Returns:
        (rows, D)
    """
    device = next(model.parameters()).device
    start, end = special_token(tokenizer, "cls", "bos"), special_token(tokenizer, "sep", "eos")
    rows = [[start, *row, end] for row in rows]
    batch = max(BATCH_TOKENS // max(map(len, rows)), 1)
    vectors = []
    for first in range(0, len(rows), batch):
        part = [torch.tensor(row) for row in rows[first : first + batch]]
        key_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in part], batch_first=True).to(device)
        ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=tokenizer.pad_token_id).to(device)
        states = model(input_ids=ids, attention_mask=key_mask).last_hidden_state  # (n, t, D)
        means = (states * key_mask[..., None]).sum(1) / key_mask.sum(1, keepdim=True)  # (n, D)
        vectors.append(normalize(means, dim=-1).cpu())
        on_rows(sum(map(len, part)) - AROUND * len(part))
    return torch.cat(vectors)


def best_chunk_scores(queries: Tensor, chunks: list[Tensor]) -> Tensor:
    """Return the similarity (Q, N) of queries (Q, D) and the nearest chunk of each document, N times (chunks, D)."""
    return torch.stack([(queries @ own.T).amax(1) for own in chunks], 1)


def average_chunks(chunks: list[Tensor]) -> Tensor:
    """Return one unit vector for each document, the mean of its chunks: N times (chunks, D) to (N, D)."""
    return normalize(torch.stack([own.mean(0) for own in chunks]), dim=-1)


def right_ranks(scores: Tensor) -> Tensor:
    """Return the rank (N,) of document i for query i, from (N, N) scores: 1 is the best; ties count against it."""
    return (scores >= scores.diagonal()[:, None]).sum(1)


def retrieval(scores: Tensor) -> dict[str, float]:
    """Return top-1 accuracy and mean reciprocal rank of (N, N) scores, where document i answers query i."""
    ranks = right_ranks(scores)
    return {
        "accuracy": round((ranks == 1).double().mean().item(), 4),
        "reciprocal_rank": round((1 / ranks.double()).mean().item(), 4),
    }
