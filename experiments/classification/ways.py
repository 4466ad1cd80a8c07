"""Ways to classify long documents by an encoder: what of a document a model learns from, and is asked about."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.question_answering.training import WEIGHT_DECAY, set_learning_rate
from lsg_converter import LSGConverter

OVERLAP = 64  # tokens that two windows share
FIRST, WINDOWS = "first {} tokens", "windows of {}, mean of the logits"
CONVERTED, LATER = "converted, then fine-tuned", "fine-tuned on windows, then converted"


class Labelled(NamedTuple):
    """A document and the number of its class."""

    text: str
    label: int


@dataclass
class Way:
    """A model, and how it reads a document.

    Args:
        size: tokens in a row.
        has_windows: whether a document is cut into rows, or only its first tokens are read.
        learns: whether the model is fine-tuned this way; False if it has been in another way.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    size: int
    has_windows: bool = False
    learns: bool = True
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.options = {"truncation": True, "max_length": self.size, "return_tensors": "pt"}
        if self.has_windows:
            self.options |= {"stride": OVERLAP, "return_overflowing_tokens": True, "padding": True}

    def logits(self, text: str) -> Tensor:
        """Return the logits (classes,) of a document, the mean over its rows."""
        rows = self.tokenizer(text, **self.options)
        rows = {name: rows[name] for name in self.tokenizer.model_input_names if name in rows}
        return self.model(**rows).logits.mean(0)


def make_ways(
    make_model: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerBase, unit: int, length: int
) -> Iterator[Way]:
    """Return the ways one after the other; the last one has the model of the second, which has been fine-tuned by then.

    Args:
        make_model: makes a plain classifier, the same at every call.
        unit: tokens that it reads.
        length: of the longest document.
    """
    converter = LSGConverter(length)
    yield Way(FIRST.format(unit), make_model(), tokenizer, unit)
    windows = Way(WINDOWS.format(unit), make_model(), tokenizer, unit, has_windows=True)
    yield windows
    model, longer = converter.convert(make_model(), tokenizer)
    yield Way(CONVERTED, model, longer, length)
    model, longer = converter.convert(windows.model, tokenizer)
    yield Way(LATER, model, longer, length, learns=False)


def fine_tune(
    way: Way, documents: list[Labelled], epochs: int, batch_size: int, learning_rate: float, seed: int
) -> None:
    """Fine-tune the model of a way in place; a step has the mean loss of some documents, read one by one."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    order = [document for _ in range(epochs) for document in rng.sample(documents, len(documents))]
    steps = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    parameters = list(way.model.train().parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    for number, step in enumerate(tqdm(steps, desc=way.name, unit="step", mininterval=2), 1):
        set_learning_rate(optimizer, learning_rate, number / (len(steps) + 1))
        optimizer.zero_grad()
        for document in step:
            loss = torch.nn.functional.cross_entropy(way.logits(document.text), torch.tensor(document.label))
            (loss / len(step)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


@torch.inference_mode()
def classify(way: Way, documents: list[Labelled]) -> dict[str, Any]:
    """Return the number of the class that each document is given, and the CPU seconds a document takes."""
    way.model.eval()
    started = time.process_time()
    found = [int(way.logits(document.text).argmax()) for document in tqdm(documents, desc="reading", mininterval=2)]
    return {"found": found, "seconds": round((time.process_time() - started) / len(documents), 3)}
