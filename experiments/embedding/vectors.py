"""The vectors of documents, by every method, and the ranks that they give. T tokens, k vectors, D wide, N documents."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.lsg_settings import describe
from experiments.common.models import tokens_read
from experiments.common.tokens import AROUND, special_token
from lsg import LSGConverter
from lsg.errors import read_json
from lsg.hub_options import HubOptions
from lsg.sentence_encoders import MODULES, read_modules

BATCH_TOKENS = 8192  # in a forward pass; at least one row
# from the tokens of a document's title and of its text to vectors (k, D) of one or more methods
Reader = Callable[[Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder that averages its last hidden states."""

    model: PreTrainedModel
    start: int  # ids of the start and the end token, and of padding
    end: int
    padding: int

    @torch.no_grad()
    def states(self, rows: list[Tensor]) -> list[Tensor]:
        """Return the last hidden states (T + 2, D) of each row of T token ids, read between start and end token."""
        start, end = torch.tensor([self.start]), torch.tensor([self.end])
        whole = [torch.cat([start, row, end]) for row in rows]
        size = max(BATCH_TOKENS // max(map(len, whole)), 1)
        found: list[Tensor] = []
        for first in range(0, len(whole), size):
            part = whole[first : first + size]
            ids = pad_sequence(part, batch_first=True, padding_value=self.padding)  # (n, t)
            mask = pad_sequence([torch.ones_like(row) for row in part], batch_first=True)  # (n, t)
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, t, D)
            found += [own[: len(row)] for own, row in zip(states, part, strict=True)]
        return found

    def vectors(self, rows: list[Tensor]) -> Tensor:
        """Return a unit vector for each row, (rows, D)."""
        return mean_vectors(self.states(rows))


def check_pooling(checkpoint: str, option: str = "--checkpoint") -> None:
    """Raise InputError if a checkpoint of sentence-transformers does something else than average hidden states."""
    hub = HubOptions()
    file = hub.find_file(checkpoint, MODULES)
    for module in read_modules(file) if file else []:
        config = hub.find_file(checkpoint, f"{module.path}/config.json")
        kind = module.kind.rpartition(".")[2]
        settings = read_json(config) if kind == "Pooling" and config else {}
        modes = {name for name, value in settings.items() if name.startswith("pooling_mode") and value}
        if kind not in ("Pooling", "Normalize") or modes - {"pooling_mode_mean_tokens"}:
            what = ", ".join(sorted(modes)) or f"a module {kind}"
            raise InputError(f"{option} {checkpoint}: mean pooling is expected, this has {what}")


def make_encoder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """Return the encoder of a model."""
    start, end = special_token(tokenizer, "cls", "bos"), special_token(tokenizer, "sep", "eos")
    return Encoder(model, start, end, special_token(tokenizer, "pad"))


def mean_vectors(parts: list[Tensor]) -> Tensor:
    """Return the unit vector (parts, D) of the mean of each part (t, D)."""
    return normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)


def split_chunks(row: Tensor, size: int) -> list[Tensor]:
    """Cut (T, ...) into chunks of equal length, of at most `size` tokens with start and end token."""
    return list(row.tensor_split(-(-len(row) // (size - AROUND))))


def read_whole(name: str, encoder: Encoder, sizes: list[int]) -> Reader:
    """Return a reader of whole documents: their mean, and late chunking, the means of the states of each chunk."""

    def read(title: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        [states] = encoder.states([tokens])
        late = {size: mean_vectors(split_chunks(states[1:-1], size)) for size in sizes}
        return {name: mean_vectors([states])} | {f"{name}, late chunks of {size}": x for size, x in late.items()}

    return read


def read_start(encoder: Encoder, size: int) -> Reader:
    """Return a reader of the first `size` tokens."""
    return lambda title, tokens: {f"first {size} tokens": encoder.vectors([tokens[: size - AROUND]])}


def read_chunks(encoder: Encoder, size: int) -> Reader:
    """Return a reader of chunks: the mean of their vectors, and all vectors."""

    def read(title: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        vectors = encoder.vectors(split_chunks(tokens, size))
        return {f"mean of chunks of {size}": mean_vectors([vectors]), f"best chunk of {size}": vectors}

    return read


def read_titled(encoder: Encoder, size: int) -> Reader:
    """Return a reader of the same chunks, with the document's title in front of each."""

    def read(title: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        rows = [torch.cat([title, chunk]) for chunk in split_chunks(tokens, size)]
        return {titled(size): encoder.vectors(rows)}

    return read


def titled(size: int) -> str:
    """Return the name of the method with titles in front of chunks."""
    return f"best chunk of {size}, title in front"


def make_readers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: list[dict[str, Any]],
    length: int,
    sizes: list[int],
) -> list[Reader]:
    """Return the readers of all methods.

    Args:
        settings: the LSG fields of each converted model.
        length: of the longest document with its start and end token.
        sizes: of the chunks.

    Raises:
        ConversionError: LSG fields that do not exist, or contradict each other.
    """
    plain, readers = make_encoder(model, tokenizer), list[Reader]()
    for fields in settings:
        converted, _ = LSGConverter(length).convert(model, tokenizer, **{"mask_first_token": True, **fields})
        name = f"LSG {describe(converted.config, fields)}"
        readers.append(read_whole(name, make_encoder(converted, tokenizer), sizes))
    readers.append(read_start(plain, tokens_read(model.config, tokenizer)))
    readers += [read_chunks(plain, size) for size in sizes]
    return readers + [read_titled(plain, size) for size in sizes]


def read_all(
    readers: list[Reader], titles: list[Tensor], texts: list[Tensor]
) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
    """Return the vectors (k, D) of each document, and the CPU seconds of all, by method.

    Readers take turns for each document, so that whatever slows the machine down affects all of them.
    """
    vectors: dict[str, list[Tensor]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for reader in readers:  # what is done once, in the first call, is not measured
        reader(titles[0], texts[0])
    pairs = list(zip(titles, texts, strict=True))
    for number, pair in enumerate(tqdm(pairs, desc="reading", unit="document", mininterval=2)):
        turn = number % len(readers)
        for reader in readers[turn:] + readers[:turn]:
            started = time.process_time()
            found = reader(*pair)
            spent = time.process_time() - started
            for name, own in found.items():
                vectors[name].append(own)
                seconds[name] += spent
    return vectors, seconds


def right_ranks(queries: Tensor, documents: list[Tensor], right: Tensor) -> Tensor:
    """Return the rank (Q,) of the right document by the similarity of its nearest vector; 1 is the best.

    Ties count against it.

    Args:
        queries: (Q, D), unit vectors.
        documents: N times (k, D), unit vectors.
        right: (Q,), the number of each query's document.
    """
    scores = torch.stack([(queries @ own.T).amax(1) for own in documents], 1)  # (Q, N)
    return (scores >= scores.gather(1, right[:, None])).sum(1)
