"""What is done with each document: a vector, classes, or the answer to a question.

Shapes: n documents of a batch, t tokens, D hidden size, c classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.tokens import special_token
from experiments.embedding.vectors import check_pooling, mean_vectors
from experiments.question_answering.answers import Encoded, choose_answer, encode_question
from lsg.export import input_names

MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True)
class Row:
    """A document as a model's input.

    Args:
        text: the document.
        inputs: what the tokenizer returns for the model, each (t,).
        is_truncated: the model does not read all of the document.
        encoded: of a question and its document.
    """

    text: str
    inputs: dict[str, Tensor]
    is_truncated: bool
    encoded: Encoded | None = None

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


class Task:
    """A model that reads documents.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: the model's, of the fast kind.
        limit: tokens of a document that are read.
    """

    auto_class = "AutoModel"
    columns: dict[str, pa.DataType] = {}  # of the results

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
        self.model, self.tokenizer, self.limit = model, tokenizer, limit
        self.names = input_names(model, tokenizer)
        self.padding = special_token(tokenizer, "pad")

    def encode(self, texts: Sequence[str]) -> list[Row]:
        """Return each text as the model's input."""
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.limit)
        inputs = [{name: torch.tensor(rows[name][i]) for name in self.names} for i in range(len(texts))]
        is_truncated = [bool(encoding.overflowing) for encoding in rows.encodings or []]
        return [Row(*fields) for fields in zip(texts, inputs, is_truncated, strict=True)]

    @torch.inference_mode()
    def read(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the results of a batch, by column."""
        inputs = {
            name: pad_sequence([row.inputs[name] for row in rows], True, self.padding if name == "input_ids" else 0).to(
                self.model.device
            )
            for name in self.names
        }
        return self.results(self.model(**inputs), rows)

    def results(self, outputs: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return what the model's outputs say of each document, by column."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Return what a reader of the results has to know of the model."""
        return {}


class Embed(Task):
    """A unit vector: the mean of the last hidden states of all tokens."""

    columns = {"embedding": pa.list_(pa.float32())}

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
        super().__init__(model, tokenizer, limit)
        if model.config.is_encoder_decoder:
            raise InputError("--task embed: an encoder is expected, this is an encoder-decoder")
        check_pooling(str(model.name_or_path), "--model")

    def results(self, outputs: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the vectors (D,)."""
        states = outputs.last_hidden_state.float().cpu()  # (n, t, D)
        vectors = mean_vectors([own[: len(row)] for own, row in zip(states, rows, strict=True)])  # (n, D)
        return [{"embedding": vector} for vector in vectors.numpy()]


class Classify(Task):
    """The classes of a document, and the scores of all."""

    auto_class = "AutoModelForSequenceClassification"
    columns = {"labels": pa.list_(pa.string()), "scores": pa.list_(pa.float32())}

    def results(self, outputs: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the classes with a logit above 0 and sigmoids if there may be several, else the likeliest and softmax.

        A model with one output, such as a regression, has no classes; its score is the output itself.
        """
        logits, names = outputs.logits.float().cpu(), self.classes()  # (n, c)
        if logits.shape[1] == 1:
            chosen, scores = torch.zeros_like(logits, dtype=torch.bool), logits
        elif self.model.config.problem_type == MULTI_LABEL:
            chosen, scores = logits > 0, logits.sigmoid()
        else:
            chosen, scores = logits == logits.max(1, keepdim=True).values, logits.softmax(1)
        labels = [[names[i] for i in own.nonzero()[:, 0].tolist()] for own in chosen]
        return [{"labels": own, "scores": score} for own, score in zip(labels, scores.numpy(), strict=True)]

    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of the scores."""
        names: Any = self.model.config.id2label
        return [names[i] for i in range(len(names))]

    def about(self) -> dict[str, Any]:
        """Return the classes."""
        return {"classes": self.classes()}


class Answer(Task):
    """The answer to one question that is asked of all documents.

    Args:
        question: the question.
        max_answer_tokens: of the longest answer.
    """

    auto_class = "AutoModelForQuestionAnswering"
    columns = {
        "answer": pa.string(),
        "answer_start": pa.int64(),
        "answer_end": pa.int64(),
        "answer_score": pa.float32(),
        "refused": pa.bool_(),
    }

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        limit: int,
        question: str,
        max_answer_tokens: int,
    ) -> None:
        super().__init__(model, tokenizer, limit)
        self.question, self.max_answer_tokens = question, max_answer_tokens
        self.encode(["a"])  # a question that is too long is refused at once

    def encode(self, texts: Sequence[str]) -> list[Row]:
        """Return the question with each text as the model's input.

        Raises:
            InputError: the question leaves no room for a document.
        """
        return [self.encode_one(text) for text in texts]

    def encode_one(self, text: str) -> Row:
        """Return the question with a text; windows after the first are left out."""
        windows = encode_question(self.tokenizer, self.question, text, self.limit)
        inputs = {name: windows.inputs[name][0] for name in self.names}
        first = Encoded({}, windows.is_document[:1], windows.offsets[:1])
        return Row(text, inputs, len(windows.is_document) > 1, first)

    def results(self, outputs: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the best answers, and whether "it does not say" is better."""
        pairs = zip(outputs.start_logits.cpu(), outputs.end_logits.cpu(), rows, strict=True)
        return [self.answer(start[None, : len(row)], end[None, : len(row)], row) for start, end, row in pairs]

    def answer(self, start: Tensor, end: Tensor, row: Row) -> dict[str, Any]:
        """Return the answer by the logits (1, t) of its first and last token."""
        assert row.encoded is not None
        best, or_none = (choose_answer(start, end, row.encoded, self.max_answer_tokens, may) for may in (False, True))
        first, behind = best.span or (None, None)
        return {
            "answer": best.span and row.text[first:behind],
            "answer_start": first,
            "answer_end": behind,
            "answer_score": best.score,
            "refused": or_none.span is None,
        }


TASKS: dict[str, type[Task]] = {"embed": Embed, "classify": Classify, "answer": Answer}


def batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield which documents are read together: long ones first, so many that the padded batch is no larger.

    Args:
        lengths: tokens of each document.
        tokens_per_batch: of all rows together, with padding; a longer document is read alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(tokens_per_batch // max(lengths[order[0]], 1), 1)
        yield order[:size]
        order = order[size:]


def read_texts(task: Task, texts: Sequence[str], tokens_per_batch: int) -> list[dict[str, Any]]:
    """Return the results of each text by column, with `tokens`, as many as are read, and `truncated`."""
    rows = task.encode(texts) if texts else []
    found: list[dict[str, Any]] = [{"tokens": len(row), "truncated": row.is_truncated} for row in rows]
    for batch in batches([len(row) for row in rows], tokens_per_batch):
        for i, result in zip(batch, task.read([rows[i] for i in batch]), strict=True):
            found[i] |= result
    return found
