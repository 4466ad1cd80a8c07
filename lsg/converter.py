"""The conversion: load a model, extend its positions, add global tokens.

Source: arXiv 2210.15497, section 3.4. No training: what is new is computed from the embeddings of the checkpoint.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .copying import copy_into
from .embedding_init import initial_globals
from .embedding_tables import EmbeddingTables, find_tables, table_of
from .errors import ConversionError, one_line
from .hub_options import HubOptions
from .loading import LoadedCheckpoint, load_checkpoint, make_config, make_converted_config, read_config
from .model_types import ModelType, find_model_type, is_lsg_config
from .modeling.lsg_pattern import check_integer
from .pinning import PIN_FIELD, Original
from .sentence_encoders import is_sentence_encoder
from .weights import check_config_format, check_finite, check_weights_in_memory

logger = logging.get_logger(__name__)

CONTRADICTIONS = (
    ("resize_lsg", "keep_first_global_token"),
    ("resize_lsg", "new_globals"),
    ("resize_lsg", "random_global_init"),
    ("keep_first_global_token", "new_globals"),
)


@dataclass
class LSGConverter:
    """Converts checkpoints into their LSG variant.

    Args:
        max_sequence_length: maximum number of tokens of the converted model.
        random_global_init: draw the words of globals 1 and up from the word embeddings' mean and covariance,
            instead of using that of [MASK].
        global_positional_stride: positions between neighbouring globals.
        keep_first_global_token: keep global 0, initialize the others again (LSG checkpoints only).
        resize_lsg: change the positions only, keep all globals (LSG checkpoints only).
        use_token_ids: add the embedding of token type 0 to the globals, where the model has token types.
        seed: of all random draws.
        new_globals: initialize all globals again; those of a plain checkpoint always are initialized. An LSG
            checkpoint's may be trained, so it needs this, keep_first_global_token or resize_lsg.
        allow_nan: convert weights even if some are NaN or infinite.

    Raises:
        ConversionError: a value that is not allowed, or two that contradict each other.
    """

    max_sequence_length: int = 4096
    random_global_init: bool = False
    global_positional_stride: int = 64
    keep_first_global_token: bool = False
    resize_lsg: bool = False
    use_token_ids: bool = True
    seed: int = 123
    new_globals: bool = False
    allow_nan: bool = False

    def __post_init__(self) -> None:
        try:
            check_integer("max_sequence_length", self.max_sequence_length, 1)
            check_integer("global_positional_stride", self.global_positional_stride, 1)
            check_integer("seed", self.seed, 0, 2**63 - 1)
        except ValueError as error:
            raise ConversionError(one_line(error)) from error
        for first, second in CONTRADICTIONS:
            if getattr(self, first) and getattr(self, second):
                raise ConversionError(f"{first} and {second} contradict each other; choose one of them")

    def check_globals(self, config_dict: dict[str, Any], where: str) -> None:
        """Raise ConversionError unless the options about existing globals fit the checkpoint."""
        where, is_lsg = one_line(where), is_lsg_config(config_dict)
        for name in ("keep_first_global_token", "resize_lsg"):
            if getattr(self, name) and not is_lsg:
                kind = one_line(config_dict.get("model_type"))
                raise ConversionError(f"{name} is for LSG checkpoints, {where} is a plain {kind} one")
        if is_lsg and not (self.keep_first_global_token or self.resize_lsg or self.new_globals):
            raise ConversionError(
                f"{where}: an LSG checkpoint, its global tokens may be trained; choose resize_lsg (keep all of them), "
                "keep_first_global_token (keep only the first) or new_globals (initialize all again)"
            )

    def convert_from_pretrained(
        self,
        model_name_or_path: str,
        architecture: str | None = None,
        use_auth_token: bool | str = False,
        **model_kwargs: Any,
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load a checkpoint and convert it; return model and tokenizer, which `save_pretrained` saves.

        Args:
            model_name_or_path: folder, or name on the Hub.
            architecture: class to load, with or without "LSG" in front; config.json's own by default.
            use_auth_token: token for private models on the Hub (True: the stored one), like `token`.
            model_kwargs: config fields to change (block_size, sparsity_type, ...), and `token`, `revision`, `dtype`,
                `trust_remote_code`, `cache_dir`, `subfolder`, ... as from_pretrained takes them.

        Raises:
            ConversionError: with the reason in one line.
        """
        hub = HubOptions.take_from(model_kwargs)
        if use_auth_token and not hub.token:
            hub = replace(hub, token=use_auth_token)
        checkpoint = self.load_and_convert(str(model_name_or_path), architecture, hub, model_kwargs)
        return checkpoint.model, checkpoint.tokenizer

    def load_and_convert(
        self, name_or_path: str, architecture: str | None, hub: HubOptions, model_kwargs: dict[str, Any]
    ) -> LoadedCheckpoint:
        """Load and convert a checkpoint; return it with what is known of the original; see `load_checkpoint`."""
        config_dict = read_config(name_or_path, hub)
        # before weights are loaded, which takes long
        check_config_format(config_dict, name_or_path)
        self.check_globals(config_dict, name_or_path)
        check_length(self.max_sequence_length, name_or_path, config_dict, model_kwargs)
        checkpoint = load_checkpoint(name_or_path, config_dict, architecture, hub, model_kwargs)
        if not self.allow_nan:
            check_finite(checkpoint.model, name_or_path)
        if "mask_first_token" not in model_kwargs and not checkpoint.is_lsg and is_sentence_encoder(name_or_path, hub):
            self.keep_short_embeddings(checkpoint)
        self.extend(checkpoint.model, checkpoint.tokenizer, checkpoint.model_type)
        return checkpoint

    def keep_short_embeddings(self, checkpoint: LoadedCheckpoint) -> None:
        """Set mask_first_token if a sentence encoder then embeds short texts exactly as the original does."""
        config = checkpoint.model.config
        # a copy, as calling a tokenizer changes the tokenizer.json that it saves
        ids = copy.deepcopy(checkpoint.tokenizer)("a")["input_ids"]
        same = self.use_token_ids and list(ids[:1]) == [choose_bos(checkpoint.tokenizer, config)]
        if same and config.num_global_tokens == 1 and config.pool_with_global:
            config.mask_first_token = True
            logger.warning(
                "a sentence-transformers checkpoint: mask_first_token is set, so that short texts keep their "
                "embeddings; set the field yourself to choose otherwise"
            )

    def convert(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **model_kwargs: Any
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Convert a copy of a model in memory, dense or LSG, and of its tokenizer; return both copies.

        Args:
            model: of any architecture of a known type.
            tokenizer: its tokenizer.
            model_kwargs: config fields to change.

        Raises:
            ConversionError: with the reason in one line.
        """
        fields = model.config.to_dict()
        if is_lsg_config(fields) and not type(model).__name__.startswith("LSG"):
            kind = type(model).__name__
            raise ConversionError(
                f"the model: a dense {kind} of an LSG checkpoint; load it with trust_remote_code=True"
            )
        self.check_globals(fields, "the model")
        check_weights_in_memory(model)
        if not self.allow_nan:
            check_finite(model, "the model")
        is_lsg = is_lsg_config(fields)
        model_type = find_model_type(fields, type(model).__name__)
        model_class = model_type.model_class(type(model).__name__)
        original = Original(model_type, model_class, fields, tokenizer, lambda: find_tables(model).first_positions)
        config = make_converted_config(original, model_kwargs)
        converted = copy_into(model_class, config, model, is_lsg)
        tokenizer = copy.deepcopy(tokenizer)
        self.extend(converted, tokenizer, model_type)
        return converted, tokenizer

    def extend(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model_type: ModelType) -> None:
        """Set the new positions, globals and config of an LSG model, and the tokenizer's length, in place."""
        tables = find_tables(model)
        start = model_type.position_offset(model.config)
        old, length = tables.first_positions, self.max_sequence_length
        readable = model_type.tokens_read(model.config) if old is None else len(old) - start
        refuse_shorter(length, readable)  # again: in rare checkpoints config.json has another number
        if tables.globals_ is not None and not self.resize_lsg:
            special_inputs = model_type.special_inputs and model_type.special_inputs(tokenizer)
            positions = None if old is None else old[start:]
            new = self.make_globals(tables, positions, tokenizer, model.config, special_inputs)
            if self.keep_first_global_token:
                new[0] = tables.globals_.weight.data[0]
            tables.globals_.weight.data = new.to(tables.globals_.weight)
        for index, module in enumerate(tables.positions):
            tables.set_positions(index, model_type.extend_positions(table_of(module), start, length))
        model.config.max_position_embeddings = length + model_type.counted_offset(model.config)
        model.config.architectures = [type(model).__name__]
        set_tokenizer_length(tokenizer, length)

    def make_globals(
        self,
        tables: EmbeddingTables,
        positions: torch.Tensor | None,
        tokenizer: PreTrainedTokenizerBase,
        config: Any,
        special_inputs: dict[str, Any] | None,
    ) -> torch.Tensor:
        """Compute the 512 globals from a model's embeddings, (512, D) in single precision.

        Those behind the first are drawn where positions are rotary, as none would tell them apart.
        """
        bos = choose_bos(tokenizer, config)
        if bos is None:
            raise ConversionError("the tokenizer has neither a BOS nor a CLS token, and config.json no bos_token_id")
        is_drawn = self.random_global_init or positions is None
        if positions is None and self.global_positional_stride != type(self).global_positional_stride:
            logger.warning("global_positional_stride is not used: the positions are rotary, so that globals have none")
        mask = None if is_drawn else tokenizer.mask_token_id
        if mask is None and not is_drawn:
            raise ConversionError("the tokenizer has no mask token to initialize the globals: use random_global_init")
        for name, token in (("BOS", bos), ("mask", mask or 0)):
            if not 0 <= token < len(tables.words):
                raise ConversionError(f"the {name} token {token} is not among the model's {len(tables.words)} words")
        token_type = tables.token_type if self.use_token_ids else None
        stride, seed, embed_words = (
            self.global_positional_stride,
            self.seed,
            partial(tables.embed_words, special_inputs),
        )
        try:
            return initial_globals(tables.words, positions, token_type, bos, mask, stride, seed, embed_words)
        except ValueError as error:
            raise ConversionError(one_line(error)) from error


def check_length(length: int, where: str, config_dict: dict[str, Any], model_kwargs: dict[str, Any]) -> None:
    """Raise ConversionError if a length is below that of a checkpoint, according to its config.json."""
    model_type = find_model_type(config_dict, where)
    config = make_config(model_type, config_dict, {**model_kwargs, PIN_FIELD: False})  # what it needs is not known yet
    if isinstance(config.max_position_embeddings, int):  # otherwise no model can be built, which is an error of its own
        refuse_shorter(length, model_type.tokens_read(config))


def refuse_shorter(length: int, readable: int) -> None:
    """Raise ConversionError if a length is below that of the checkpoint."""
    if length < readable:
        raise ConversionError(
            f"max_sequence_length={length} is below the {readable} tokens that the checkpoint reads; "
            f"choose {readable} or more"
        )


def choose_bos(tokenizer: PreTrainedTokenizerBase, config: Any) -> int | None:
    """Return the token that texts begin with, which global 0 represents; None if there is none."""
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id, getattr(config, "bos_token_id", None))
    return next((token for token in candidates if token is not None), None)


def set_tokenizer_length(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    """Let a tokenizer truncate at `length`, in place, and pad to the longest text of a batch.

    transformers decides on both at every call. `Tokenizer.from_file("tokenizer.json")`, and servers built on it, follow
    that file, which fits the original: it may truncate at 128 tokens and pad up to them. Their users rely on the
    truncation, so it stays, at the new length. Padding every text up to that length would be a waste, so padding is to
    the longest text. Nothing is added that the file does not have.
    """
    tokenizer.model_max_length = length
    # the tokenizer_config.json that save_pretrained writes repeats the number
    if tokenizer.init_kwargs.get("max_length") is not None:
        tokenizer.init_kwargs["max_length"] = length
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer without tokenizer.json
        return
    if backend.truncation is not None:
        backend.enable_truncation(**{**backend.truncation, "max_length": length})
    if backend.padding is not None:
        backend.enable_padding(**{**backend.padding, "length": None})
