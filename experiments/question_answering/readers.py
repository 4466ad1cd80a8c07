"""The ways to read a question and a long document that are compared.

Shapes: w windows, t tokens, P tokens of the question with what stands around it, D of the document, H hidden size.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.common.models import tokens_read
from experiments.question_answering.answers import Encoded
from lsg_converter import LSGConverter

LOGITS = "start_logits", "end_logits"  # (w, t) each, of a question-answering head
AS_BEFORE = {"sparsity_type": "norm", "block_size": 128, "sparse_block_size": 128, "sparsity_factor": 2}


@dataclass(frozen=True)
class Reader:
    """A model with a head, and the windows that it reads.

    Args:
        name: for the tables.
        model: takes `Encoded.inputs`.
        size, overlap: of the windows, in tokens.
        only_first: the other windows are not read.
        batch_size: windows that are read together.
    """

    name: str
    model: Callable[..., Any]
    size: int
    overlap: int = 0
    only_first: bool = False
    batch_size: int = 16

    def select(self, encoded: Encoded) -> Encoded:
        """Return the windows that are read."""
        if not self.only_first:
            return encoded
        inputs = {name: x[:1] for name, x in encoded.inputs.items()}
        return Encoded(inputs, encoded.is_document[:1], encoded.offsets[:1])

    @torch.no_grad()
    def read(self, inputs: dict[str, Tensor], *names: str) -> list[Tensor]:
        """Return the model's outputs of these names for all windows, each (w, ...)."""
        parts = []
        for start in range(0, len(inputs["input_ids"]), self.batch_size):
            outputs = self.model(**{name: x[start : start + self.batch_size] for name, x in inputs.items()})
            parts.append([getattr(outputs, name) for name in names])
        return [torch.cat(part) for part in zip(*parts, strict=True)]


@dataclass
class Logits:
    """What a question-answering head returns, each (n, t)."""

    start_logits: Tensor
    end_logits: Tensor


class QuestionAsGlobals:
    """A converted model whose global tokens are global 0 and all tokens of the question, as Longformer reads.

    They read everything, and everything reads them. Called like a model, with one row without padding.

    Args:
        model: an LSG question-answering model with `embeddings` and `encoder` in its base model.
        separator: the token that ends the question.
        period: n, the number of positions that were tiled.
    """

    def __init__(self, model: Any, separator: int, period: int) -> None:
        self.model, self.separator, self.period = model, separator, period

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **types: Tensor) -> Logits:
        """Return the logits; the arguments are (1, t), with padding behind, whose logits are 0."""
        base, config = self.model.base_model, self.model.config
        padded, t = input_ids.shape[1], int(attention_mask.sum())
        p = int((input_ids[0] == self.separator).nonzero()[0]) + 1
        index = torch.arange(t)[None]
        positions = torch.where(index < p, index, p + (index - p) % (self.period - p))
        inputs = {name: x[:, :t] for name, x in {"input_ids": input_ids, **types}.items()}
        x = base.embeddings(**inputs, position_ids=positions + base.embeddings.position_offset)  # (1, 1 + t, H)
        found: list[Tensor] = []

        def keep(_layer: Any, _inputs: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)  # (1, 1 + t, H)

        hook = base.encoder.layer[-1].register_forward_hook(keep)
        given = config.num_global_tokens, config.pool_with_global
        config.num_global_tokens, config.pool_with_global = 1 + p, False
        try:
            base.encoder(x)  # its own output has the document's tokens only
        finally:
            config.num_global_tokens, config.pool_with_global = given
            hook.remove()
        hidden = torch.cat([found[0][:, :1], found[0][:, 2:]], 1)  # global 0 stands for token 0, as in other LSG models
        start, end = pad(self.model.qa_outputs(hidden), (0, 0, 0, padded - t)).unbind(-1)  # (1, padded)
        return Logits(start, end)

    @staticmethod
    def fits(model: Any) -> bool:
        """Return whether a model has the parts that are needed."""
        base = model.base_model
        return hasattr(getattr(base, "encoder", None), "layer") and not hasattr(base, "embeddings_project")


def sizes(sparsity_type: str, block_size: int) -> dict[str, Any]:
    """Return the LSG fields of a variant: s = b and f = 2, f = 4 for blocks of up to 32 tokens."""
    factor = 4 if block_size <= 32 else 2
    return {
        "sparsity_type": sparsity_type,
        "block_size": block_size,
        "sparse_block_size": block_size,
        "sparsity_factor": factor,
    }


def make_readers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace
) -> tuple[list[Reader], dict[str, dict[str, Any]]]:
    """Return all readers, and the LSG fields of those that have some.

    Args:
        args: `windows`, `overlap`, `block_sizes`, `sparsity_types`, `max_sequence_length`, `max_pinned_tokens`.

    Raises:
        ConversionError: LSG fields that do not go together.
    """
    n = tokens_read(model.config, tokenizer)
    length = max(n, args.max_sequence_length)
    converter = LSGConverter(length)
    readers = [Reader(f"first {n} tokens", model, n, only_first=True)]
    readers += [
        Reader(f"windows of {size}, overlap {args.overlap}", model, size, args.overlap)
        for size in dict.fromkeys(min(size, n) for size in args.windows)
    ]
    middle = args.block_sizes[len(args.block_sizes) // 2]
    local = f"none, b = {middle}"
    variants = {
        "LSG not pinned, norm, b = 128": {**AS_BEFORE, "pin_first_segment": False},
        f"LSG not pinned, {local}": {**sizes("none", middle), "pin_first_segment": False},
    }
    pinned = {
        "pin_first_segment": True,
        "separator_token_id": tokenizer.sep_token_id,
        "position_period": n,
        "max_pinned_tokens": args.max_pinned_tokens,
    }
    grid = [(kind, b) for kind in args.sparsity_types for b in args.block_sizes]
    variants |= {f"LSG pinned, {kind}, b = {b}": {**sizes(kind, b), **pinned} for kind, b in grid}
    models = {name: converter.convert(model, tokenizer, **fields)[0] for name, fields in variants.items()}
    readers += [Reader(name, converted, length) for name, converted in models.items()]
    plain = models[f"LSG not pinned, {local}"]
    if QuestionAsGlobals.fits(plain):
        as_globals = QuestionAsGlobals(plain, int(tokenizer.sep_token_id), n)
        readers.append(Reader(f"LSG, question as globals, {local}", as_globals, length, batch_size=1))
    return readers, variants
