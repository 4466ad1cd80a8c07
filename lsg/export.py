"""Export an encoder as one graph for every batch and every length, with torch.export.

What is traced takes the backend "blocks", whose graph does not depend on the length (see `lsg_sparse.rows_of_blocks`).
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from .modeling.lsg_pattern import check

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# what else some encoders read of each token: fields with the number of values and, if there are several, how many
FURTHER_INPUTS = {
    "input_shape_ids": ("shape_vocab_size", None),
    "input_pronunciation_ids": ("pronunciation_vocab_size", None),
    "bbox": ("max_2d_position_embeddings", 4),
    "xpath_tags_seq": ("max_xpath_tag_unit_embeddings", "max_depth"),
    "xpath_subs_seq": ("max_xpath_subs_unit_embeddings", "max_depth"),
}
DIMENSIONS = ("batch_size", "num_choices", "sequence_length")  # the second one for multiple choice only


class ExportedEncoder(nn.Module):
    """A model that returns a tuple of tensors, of which `output_names` has the names.

    Args:
        model: an LSG encoder with any head.
        sentence_modules: those of a sentence-transformers checkpoint behind the model; they add "sentence_embedding".
    """

    def __init__(self, model: PreTrainedModel, sentence_modules: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.model, self.sentence_modules = model, nn.ModuleList(sentence_modules)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        input_shape_ids: Tensor | None = None,
        input_pronunciation_ids: Tensor | None = None,
        bbox: Tensor | None = None,
        xpath_tags_seq: Tensor | None = None,
        xpath_subs_seq: Tensor | None = None,
    ) -> tuple:
        """Run the model on (n, t), for multiple choice (n, c, t), and what stands behind it."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs |= {"input_shape_ids": input_shape_ids, "input_pronunciation_ids": input_pronunciation_ids}
        inputs |= {"bbox": bbox, "xpath_tags_seq": xpath_tags_seq, "xpath_subs_seq": xpath_subs_seq}
        with start_and_end_apart(self.model):
            outputs = self.model(**{name: x for name, x in inputs.items() if x is not None})
        results = {name: x for name, x in outputs.items() if name == "last_hidden_state" or name.endswith("logits")}
        if self.sentence_modules:
            features = {"token_embeddings": outputs.last_hidden_state, "attention_mask": attention_mask}
            for module in self.sentence_modules:
                features = module(features)
            results["sentence_embedding"] = features["sentence_embedding"]
        self.output_names = list(results)
        return tuple(results.values())


@contextlib.contextmanager
def start_and_end_apart(model: nn.Module) -> Iterator[None]:
    """In the block, a question-answering head makes start and end logits that are contiguous, each for itself.

    transformers makes them so; if they are not yet, a tracer asks whether the text has one token.
    """
    is_answering = type(model).__name__.endswith("ForQuestionAnswering")
    head: Any = getattr(model, "qa_outputs", getattr(model, "classifier", None))  # the latter in ModernBERT
    if head is None or not is_answering:
        yield
        return

    def separate(layer: nn.Module, inputs: tuple, outputs: Tensor) -> Tensor:
        return torch.stack(outputs.unbind(-1)).movedim(0, -1)  # (n, t, 2)

    hook = head.register_forward_hook(separate)
    try:
        yield
    finally:
        hook.remove()


def input_names(model: PreTrainedModel, tokenizer: Any) -> list[str]:
    """Return the names of the inputs: what the tokenizer makes and the model takes, and what else the model reads."""
    accepted = inspect.signature(model.forward).parameters
    made = {"input_ids", "attention_mask", *tokenizer.model_input_names}
    return [name for name in (*INPUTS, *FURTHER_INPUTS) if name in accepted and (name in made or name not in INPUTS)]


def values_of_a_token(config: Any, name: str) -> tuple[int, ...]:
    """Return what follows (n, t) in the shape of an input: (), or (number of values,)."""
    _, number = FURTHER_INPUTS.get(name, (None, None))
    return () if number is None else (getattr(config, number) if isinstance(number, str) else number,)


def dimension_names(model: PreTrainedModel) -> dict[int, str]:
    """Return the names of the dimensions of the inputs, by place."""
    has_choices = type(model).__name__.endswith("ForMultipleChoice")
    names = DIMENSIONS if has_choices else (DIMENSIONS[0], DIMENSIONS[2])
    return dict(enumerate(names))


@contextlib.contextmanager
def one_is_no_special_size() -> Iterator[None]:
    """Have torch trace a batch of one row, and a text of one token, in the same way as all others, in the block."""
    config: Any = import_module("torch.fx.experimental._config")
    with config.patch(backed_size_oblivious=True):
        yield


def export_program(encoder: ExportedEncoder, names: Sequence[str], max_length: int) -> ExportedProgram:
    """Return the encoder as a program of torch.export, for any number of rows and 1 to `max_length` tokens.

    Args:
        encoder: in evaluation mode; `lsg_backend` must be "auto" or "blocks".
        names: of the inputs, from `input_names`.
        max_length: the maximum number of tokens.

    Raises:
        ValueError: another backend, or adaptive=False, with which not every length is allowed.
    """
    config = encoder.model.config
    check(config.lsg_backend in ("auto", "blocks"), "lsg_backend", config.lsg_backend, "only 'blocks' can be exported")
    check(config.adaptive, "adaptive", config.adaptive, "an exported model takes every length; it must be true")
    return trace(encoder, names, max_length, min(max_length, 2 * config.block_size + 3))


def trace(encoder: ExportedEncoder, names: Sequence[str], max_length: int, sample_length: int) -> ExportedProgram:
    """Return what `export_program` does, of any model, dense ones too, traced with a text of `sample_length` tokens."""
    dims = {place: Dim(name) for place, name in dimension_names(encoder.model).items()}
    dims[len(dims) - 1] = Dim("sequence_length", max=max_length)
    shape = [2] * (len(dims) - 1) + [sample_length]
    config = encoder.model.config
    sample = {name: torch.ones((*shape, *values_of_a_token(config, name)), dtype=torch.long) for name in names}
    with torch.no_grad(), one_is_no_special_size():
        return torch.export.export(encoder, (), sample, dynamic_shapes=dict.fromkeys(names, dims), strict=False)
