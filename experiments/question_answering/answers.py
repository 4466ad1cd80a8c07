"""From the logits of a question-answering head to an answer, and how good the answer is.

Shapes: w windows of one document, t tokens in each.
"""

import re
import string
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.sentences import sentence_spans
from experiments.question_answering.squad import Question


@dataclass(frozen=True)
class Encoded:
    """A question and its document as a model's inputs, in one or more windows.

    Args:
        inputs: what the tokenizer returns for the model, each (w, t), padded behind.
        is_document: (w, t) boolean, the tokens that an answer may have.
        offsets: (w, t, 2), the first character of each token in its text, and the one behind it.
    """

    inputs: dict[str, Tensor]
    is_document: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Answer:
    """An answer: characters of the context, None for "it does not say", and its score."""

    span: tuple[int, int] | None
    score: float


def encode_question(
    tokenizer: PreTrainedTokenizerBase, question: str, context: str, size: int, overlap: int = 0
) -> Encoded:
    """Return a question and its document as windows of at most `size` tokens, the question in each of them.

    Args:
        overlap: tokens of the document that two windows share.

    Raises:
        InputError: a question that leaves no room for the document.
    """
    room = size - len(tokenizer(question, "")["input_ids"])
    if room <= overlap:
        raise InputError(
            f"a question leaves {room} of {size} tokens for the document; more than {overlap} are needed, the tokens "
            f"that two windows share: {question[:60]!r}"
        )
    rows = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=size,
        stride=overlap,
        padding=True,
        padding_side="right",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    is_document = torch.tensor([[part == 1 for part in rows.sequence_ids(i)] for i in range(len(rows["input_ids"]))])
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Encoded({name: rows[name] for name in names if name in rows}, is_document, rows["offset_mapping"])


def best_span(start: Tensor, end: Tensor, allowed: Tensor, max_tokens: int) -> tuple[float, int, int, int]:
    """Return the best span of at most `max_tokens` allowed tokens: its score, window, first and last token.

    Args:
        start, end: logits (w, t); the score of a span is the sum of the two.
        allowed: (w, t) boolean, without gaps in any window.
    """
    start, end = (x.float().masked_fill(~allowed, -torch.inf) for x in (start, end))
    best, t = (-float("inf"), 0, 0, 0), start.shape[1]
    for more in range(min(max_tokens, t)):
        scores = start[:, : t - more] + end[:, more:]  # (w, t - more)
        score, place = scores.flatten().max(0)
        if score.item() > best[0]:
            window, first = divmod(int(place), t - more)
            best = (score.item(), window, first, first + more)
    return best


def choose_answer(start: Tensor, end: Tensor, encoded: Encoded, max_tokens: int, may_refuse: bool) -> Answer:
    """Return the best answer of all windows, by the logits as they are.

    Args:
        start, end: logits (w, t).
        may_refuse: "it does not say" is an answer, too; its score is that of token 0, the lowest of all windows.
    """
    score, window, first, last = best_span(start, end, encoded.is_document, max_tokens)
    refusal = (start[:, 0] + end[:, 0]).min().item()
    if score == -float("inf") or (may_refuse and refusal > score):
        return Answer(None, refusal)
    offsets = encoded.offsets[window]
    return Answer((int(offsets[first, 0]), int(offsets[last, 1])), score)


def normalize(text: str) -> list[str]:
    """Return the words of an answer as SQuAD compares them: lower case, without punctuation and articles."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(?:a|an|the)\b", " ", text).split()


def overlap_score(answer: str, expected: str) -> float:
    """Return the F1 score of the words of an answer; two without words are equal."""
    given, wanted = normalize(answer), normalize(expected)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def score_answer(answer: Answer, question: Question) -> dict[str, float]:
    """Return how good an answer is, 0 to 1: exact match, overlap, and whether it lies in the right sentence.

    The best of several accepted answers counts. For a question without an answer all three are 1 if none is given.
    """
    if not question.answers or answer.span is None:
        right = float(not question.answers and answer.span is None)
        return {"exact": right, "overlap": right, "sentence": right}
    first, behind = answer.span
    given = question.context[first:behind]
    spans = sentence_spans(question.context)
    expected = [span for span in spans if any(span[0] <= start < span[1] for _, start in question.answers)]
    return {
        "exact": float(any(normalize(given) == normalize(text) for text, _ in question.answers)),
        "overlap": max(overlap_score(given, text) for text, _ in question.answers),
        "sentence": float(any(span[0] <= first and behind <= span[1] for span in expected)),
    }
