"""Training on cloze questions: what a batch holds, its loss, and the loop.

Shapes: q questions in a batch, w windows of each, t tokens in a window.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.documents import Document
from experiments.common.errors import InputError
from experiments.question_answering.cloze import make_question, usable_sentences

MAX_TOKENS = 200  # in a window, with the question
WINDOW_WORDS = (0.2, 0.6)  # of the document in a window, divided by the tokens that a window may have
WITHOUT_ANSWER = 0.1  # of the questions, if there are windows without the answer: then no window has it
WARMUP = 0.1  # of the training
WEIGHT_DECAY = 0.01
Span = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A question with its windows; `answer` is where its characters are in the first window, None if in no window."""

    question: str
    windows: list[str]
    answer: Span | None


class Sampler:
    """Draws questions about documents, with short windows of them.

    Args:
        others: windows of the same document without the answer that each question has besides.
        mark_gap: see `make_question`.
        max_tokens: in a window, with the question.

    Raises:
        InputError: documents without sentences to ask about.
    """

    def __init__(
        self,
        documents: list[Document],
        seed: int,
        others: int = 0,
        mark_gap: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.documents, self.rng, self.others, self.mark_gap = documents, random.Random(seed), others, mark_gap
        self.fewest, self.most = (int(share * max_tokens) for share in WINDOW_WORDS)
        self.words = [[match.span() for match in re.finditer(r"\S+", document.text)] for document in documents]
        self.sentences = [(i, span) for i, document in enumerate(documents) for span in usable_sentences(document.text)]
        if not self.sentences:
            raise InputError("--text: there are no sentences to ask about in these documents")

    def window(self, number: int, size: int, sentence: Span | None = None) -> Span:
        """Return the characters of a random window of `size` words of a document, with a sentence in it if given."""
        words = self.words[number]
        first, last = 0, max(0, len(words) - size)
        if sentence is not None:
            inside = [i for i, (start, _) in enumerate(words) if sentence[0] <= start < sentence[1]]
            first, last = max(0, inside[-1] + 1 - size), min(last, inside[0])
        begin = self.rng.randint(min(first, last), last)
        return words[begin][0], words[min(begin + size, len(words)) - 1][1]

    def draw(self, size: int) -> Example:
        """Return a question with windows of up to `size` words."""
        while True:
            number, sentence = self.rng.choice(self.sentences)
            document = self.documents[number]
            question = make_question(document, sentence, self.rng, self.mark_gap)
            if question is None:
                continue
            has_answer = self.others == 0 or self.rng.random() >= WITHOUT_ANSWER
            spans = [self.window(number, size, sentence)] if has_answer else []
            for _ in range(20 * self.others):
                start, end = self.window(number, size)
                if len(spans) <= self.others and (end <= sentence[0] or start >= sentence[1]):
                    spans.append((start, end))
            if len(spans) == self.others + 1:
                text, place = question.answers[0]
                begin = place - spans[0][0]
                windows = [document.text[start:end] for start, end in spans]
                return Example(question.text, windows, (begin, begin + len(text)) if has_answer else None)


def cloze_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[Example], max_tokens: int = MAX_TOKENS
) -> Tensor:
    """Return the mean cross-entropy of the answers' first and last tokens.

    There is one softmax over token 0 and the document's tokens of all windows of a question, so that logits of
    different windows can be compared ("shared normalization", arXiv 1710.10723). Without an answer, tokens 0 are right.
    """
    pairs = [(example.question, window) for example in examples for window in example.windows]
    rows = tokenizer(
        [question for question, _ in pairs],
        [window for _, window in pairs],
        truncation="only_second",
        max_length=max_tokens,
        padding=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    offsets = rows.pop("offset_mapping")  # (q * w, t, 2)
    allowed = torch.tensor([[part == 1 for part in rows.sequence_ids(i)] for i in range(len(pairs))])  # (q * w, t)
    target = torch.zeros(2, *allowed.shape, dtype=torch.bool)  # of the start and the end
    for i, example in enumerate(examples):
        w = len(example.windows)
        row = i * w
        start, end = example.answer or (0, 0)
        inside = (allowed[row] & (offsets[row, :, 0] < end) & (offsets[row, :, 1] > start)).nonzero()[:, 0]
        if len(inside):
            target[0, row, inside[0]] = target[1, row, inside[-1]] = True
        else:  # it may have been truncated
            target[:, row : row + w, 0] = True
    allowed[:, 0] = True
    outputs = model(**rows)
    logits = torch.stack([outputs.start_logits, outputs.end_logits]).masked_fill(~allowed, -torch.inf)
    scores = logits.view(2, len(examples), -1).log_softmax(-1)  # (2, q, w * t)
    return -scores.masked_fill(~target.view_as(scores), -torch.inf).logsumexp(-1).mean()


def set_learning_rate(optimizer: torch.optim.Optimizer, highest: float, done: float) -> None:
    """Set the learning rate of a linear schedule, which rises in the first part; `done` is the part of the training."""
    for group in optimizer.param_groups:
        group["lr"] = highest * min(done / WARMUP, (1 - done) / (1 - WARMUP))


def train(
    model: PreTrainedModel,
    loss_of: Callable[[list[Example]], Tensor],
    sampler: Sampler,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Iterator[tuple[int, float]]:
    """Train a model in place; every 50 steps, and at the end, yield the step and the mean loss since the last time."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    recent: list[float] = []
    for step in tqdm(range(1, steps + 1), desc="training", unit="step", mininterval=2):
        set_learning_rate(optimizer, learning_rate, step / (steps + 1))
        size = sampler.rng.randint(sampler.fewest, sampler.most)  # one for the batch: little padding
        loss = loss_of([sampler.draw(size) for _ in range(batch_size)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if step % 50 == 0 or step == steps:
            yield step, sum(recent) / len(recent)
            recent = []
