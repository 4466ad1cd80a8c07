"""One row per model type: all that conversion knows of it. Its classes are those of its modeling file."""

import copy
import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .embedding_init import sinusoidal_positions, tile_positions
from .errors import ConversionError, one_line
from .modeling.lsg_config import LSG_MARK, auto_classes


def no_offset(config: PreTrainedConfig) -> int:
    """Return 0: positions start at the table's first row."""
    return 0


def offset_after_padding(config: PreTrainedConfig) -> int:
    """Return the row after that of the padding token, as positions are counted in fairseq.

    Raises:
        ConversionError: there is no padding token, without which the dense model cannot run either.
    """
    given = config.pad_token_id
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ConversionError(
            f"config: pad_token_id={one_line(repr(given))} is not allowed: positions are counted from it, so a token "
            'is expected; set it with model_kwargs, as in {"pad_token_id": 1}, which is what published checkpoints have'
        )
    return config.pad_token_id + 1


def offset_two(config: PreTrainedConfig) -> int:
    """Return 2, whatever the padding token, as in BART and MPNet."""
    return 2


def rotary_alone(config: PreTrainedConfig) -> int:
    """Return 0: rotary positions have no table. Raise ConversionError if an ESM has learned ones, or no padding."""
    offset_after_padding(config)  # it counts learned positions in any case
    given = config.position_embedding_type
    if given != "rotary":
        raise ConversionError(
            f'config: position_embedding_type={one_line(repr(given))} is not allowed: it must be "rotary", as in ESM-2'
        )
    return 0


def recompute_sinusoids(table: Tensor, start: int, length: int) -> Tensor:
    """Return a longer table (start + length, D) of fixed sinusoids, computed again."""
    return sinusoidal_positions(start + length, table.shape[1]).to(table)


def no_box(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return LayoutLM's place on the page of a text's first token: none."""
    return {"bbox": [0, 0, 0, 0]}


def no_path(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return nothing: without a path to a token, MarkupLM's embeddings take that of special tokens."""
    return {}


def shapes_and_sounds(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what RoCBERT's tokenizer says of a special token's looks and sound; nothing if it is another tokenizer."""
    ids = copy.deepcopy(tokenizer)("")  # a copy, as calling a tokenizer changes the tokenizer.json that it saves
    return {name: ids[name][0] for name in ("input_shape_ids", "input_pronunciation_ids") if name in ids}


@dataclass(frozen=True)
class ModelType:
    """What conversion knows of a model type.

    Args:
        name: config.json's `model_type`.
        default_architecture: the class if neither the user nor config.json names one.
        position_offset: the first row of the position table that a token may take.
        max_positions_includes_offset: whether `max_position_embeddings` counts the rows before that.
        computed_weights: endings of names of weights that a checkpoint may lack, as they are computed.
        extend_positions: function(table (rows, D), start, length) that returns a longer table, (start + length, D).
        special_inputs: function(tokenizer) that returns what embeddings read of a special token besides its id, each
            input's value for one token; None if they are no more than a sum of words, positions and types.
        renames_weights: whether published checkpoints name weights in another way than transformers, which renames them
            for its own classes only.
        since: the first release of transformers 5 that has the type, with attention that can be replaced.
    """

    name: str
    default_architecture: str
    position_offset: Callable[[PreTrainedConfig], int] = no_offset
    max_positions_includes_offset: bool = True
    computed_weights: tuple[str, ...] = ()
    extend_positions: Callable[[Tensor, int, int], Tensor] = tile_positions
    special_inputs: Callable[[PreTrainedTokenizerBase], dict[str, Any]] | None = None
    renames_weights: bool = False
    since: str = "5.0.0"

    @property
    def module(self) -> ModuleType:
        """The modeling file, imported.

        Raises:
            ConversionError: the installed transformers does not have the type; the message names a release that has it.
        """
        try:
            return importlib.import_module(f".modeling.modeling_lsg_{self.name.replace('-', '_')}", __package__)
        except ImportError as error:
            raise ConversionError(
                f"model type {self.name!r} needs transformers {self.since} or later; {transformers.__version__} is "
                f"installed ({one_line(error)})"
            ) from error

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """The LSG config class."""
        model_class: Any = self.auto_classes["AutoModel"]
        return model_class.config_class

    @property
    def auto_classes(self) -> dict[str, type[PreTrainedModel]]:
        """AutoClass name to LSG model class."""
        return auto_classes(self.module)

    @property
    def architectures(self) -> dict[str, type[PreTrainedModel]]:
        """Name of the original architecture to LSG model class."""
        return {c.__name__.removeprefix("LSG"): c for c in self.auto_classes.values()}

    def tokens_read(self, config: PreTrainedConfig) -> int:
        """Return how many tokens a model with this config reads."""
        return config.max_position_embeddings - self.counted_offset(config)

    def counted_offset(self, config: PreTrainedConfig) -> int:
        """Return by how much `max_position_embeddings` is more than the tokens that are read."""
        return self.position_offset(config) if self.max_positions_includes_offset else 0

    def model_class(self, architecture: str) -> type[PreTrainedModel]:
        """Return the LSG class of an architecture, named with or without "LSG" in front.

        Raises:
            ConversionError: the type has no such architecture; the message lists those it has.
        """
        name = architecture.removeprefix("LSG")
        if name not in self.architectures:
            allowed = ", ".join(sorted(self.architectures))
            raise ConversionError(
                f"architecture {one_line(repr(architecture))} is not one of model type {self.name!r}: {allowed}"
            )
        return self.architectures[name]


MODEL_TYPES = {
    row.name: row
    for row in (
        ModelType("albert", "AlbertForPreTraining"),
        ModelType("bart", "BartForConditionalGeneration", offset_two, max_positions_includes_offset=False),
        # its published checkpoints say "mbart" themselves; the output does, too
        ModelType("barthez", "MBartForConditionalGeneration", offset_two, max_positions_includes_offset=False),
        ModelType("bert", "BertForPreTraining"),
        ModelType("bert-generation", "BertGenerationEncoder"),
        ModelType("blenderbot", "BlenderbotForConditionalGeneration"),
        ModelType("blenderbot-small", "BlenderbotSmallForConditionalGeneration"),
        ModelType("camembert", "CamembertForMaskedLM", offset_after_padding),
        ModelType("data2vec-text", "Data2VecTextForMaskedLM", offset_after_padding),
        ModelType("distilbert", "DistilBertForMaskedLM"),
        ModelType("electra", "ElectraForPreTraining"),
        ModelType("ernie", "ErnieForPreTraining"),
        ModelType("esm", "EsmForMaskedLM", rotary_alone, renames_weights=True, since="5.6.0"),
        ModelType("eurobert", "EuroBertForMaskedLM", since="5.3.0"),
        ModelType("gte", "GteForMaskedLM", renames_weights=True, since="5.18.0"),
        ModelType("jina_embeddings_v3", "JinaEmbeddingsV3ForMaskedLM", renames_weights=True, since="5.4.0"),
        ModelType("layoutlm", "LayoutLMForMaskedLM", special_inputs=no_box),
        ModelType(
            "m2m_100",
            "M2M100ForConditionalGeneration",
            offset_after_padding,
            max_positions_includes_offset=False,
            extend_positions=recompute_sinusoids,
        ),
        ModelType(
            "marian",
            "MarianMTModel",
            computed_weights=("embed_positions.weight",),
            extend_positions=recompute_sinusoids,
        ),
        ModelType("markuplm", "MarkupLMModel", offset_after_padding, special_inputs=no_path),
        ModelType("mbart", "MBartForConditionalGeneration", offset_two, max_positions_includes_offset=False),
        ModelType("modernbert", "ModernBertForMaskedLM", since="5.1.0"),
        ModelType("mpnet", "MPNetForMaskedLM", offset_two),
        ModelType("nomic_bert", "NomicBertForMaskedLM", renames_weights=True, since="5.5.0"),
        ModelType(
            "pegasus",
            "PegasusForConditionalGeneration",
            computed_weights=("embed_positions.weight",),
            extend_positions=recompute_sinusoids,
        ),
        ModelType("plbart", "PLBartForConditionalGeneration", offset_two, max_positions_includes_offset=False),
        ModelType("roberta", "RobertaForMaskedLM", offset_after_padding),
        ModelType("roberta-prelayernorm", "RobertaPreLayerNormForMaskedLM", offset_after_padding),
        ModelType("roc_bert", "RoCBertForPreTraining", special_inputs=shapes_and_sounds),
        ModelType("splinter", "SplinterForQuestionAnswering"),
        ModelType("xlm-roberta", "XLMRobertaForMaskedLM", offset_after_padding),
        ModelType("xlm-roberta-xl", "XLMRobertaXLForMaskedLM", offset_after_padding),
        ModelType("xmod", "XmodForMaskedLM", offset_after_padding),
    )
}


NEEDED = (
    "a new type needs positions that are learned, sinusoidal or rotary, and attention through transformers' attention "
    'interface: see "Add a model type" in CONTRIBUTING.md'
)
OWN_PRODUCTS = "its attention does not go through transformers' attention interface"
OWN_SCORES = "its attention adds terms of its own to the scores, by distance"
LEFT_OUT = {
    **dict.fromkeys(("convbert", "layoutlmv3", "lilt", "luke", "megatron-bert", "mobilebert", "rembert"), OWN_PRODUCTS),
    **dict.fromkeys(("deberta", "deberta-v2", "funnel", "mt5", "t5", "umt5"), OWN_SCORES),
}


def find_model_type(config_dict: dict, where: str) -> ModelType:
    """Return the row of a config.json.

    Raises:
        ConversionError: no `model_type`, or an unknown one; the message lists the known ones, and says what is needed.
    """
    where, name = one_line(where), config_dict.get("model_type")
    known = ", ".join(sorted(MODEL_TYPES))
    if not isinstance(name, str) or not name:
        raise ConversionError(f"{where}: config.json has no model_type; known types: {known}")
    if name not in MODEL_TYPES:
        close = difflib.get_close_matches(name[:100], MODEL_TYPES, n=1, cutoff=0.6)
        hint = f"{LEFT_OUT[name]}, which is not supported" if name in LEFT_OUT else NEEDED
        hint += f"; the nearest name is {close[0]!r}" if close else ""
        raise ConversionError(f"{where}: unknown model_type {one_line(repr(name))}; known types: {known}; {hint}")
    return MODEL_TYPES[name]


def is_lsg_config(config_dict: dict) -> bool:
    """Return whether a config.json is that of an LSG checkpoint."""
    return config_dict.get("base_model_prefix") == LSG_MARK
