"""The LSG fields of a config, with their checks and the auto_map that lets the AutoClasses find our code."""

import sys
from types import ModuleType
from typing import Any, ClassVar

import transformers
from transformers import PreTrainedModel

from .lsg_pattern import BACKEND_NAMES, EARLIER_NAMES, LSGPattern, check, check_integer

# fields that the attention reads, and those that only the model around it does
PATTERN_DEFAULTS = {
    "block_size": 128,
    "sparse_block_size": 128,
    "sparsity_factor": 2,
    "sparsity_type": "norm",
    "num_global_tokens": 1,
    "lsh_num_pre_rounds": 1,
    "lsh_seed": 123,
}
SWITCH_DEFAULTS = {"adaptive": True, "mask_first_token": False, "pool_with_global": True}
BACKEND_DEFAULT = {"lsg_backend": "auto"}
PIN_DEFAULTS = {
    "pin_first_segment": False,
    "max_pinned_tokens": 128,
    "separator_token_id": None,
    "position_period": None,
}
LSG_MARK = "lsg"  # the value of `base_model_prefix` in an LSG config


class LSGConfigMixin:
    """Put it in front of a Hugging Face config class, and write `__init__ = LSGConfigMixin.__init__` in the class.

    (transformers 5.4 and later make a dataclass of every config, whose own `__init__` would not call this one.)

    Args:
        block_size, sparse_block_size, sparsity_factor, sparsity_type, num_global_tokens, lsh_num_pre_rounds,
        lsh_seed: see `LSGPattern`; at least one global token. `lsg_num_pre_rounds` is read as `lsh_num_pre_rounds`.
        adaptive: pad a sequence that is no multiple of the block size; an error if off.
        mask_first_token: no token attends to token 0; the first global stands for it.
        pool_with_global: the output of token 0 is replaced by that of the first global.
        lsg_backend: what computes the attention: "auto" (by device), "blocks", "tiled" or "flex".
        pin_first_segment: every token attends to the first segment of a pair, such as a question (see lsg_pinned).
        max_pinned_tokens: of a longer first segment only so many tokens are pinned.
        separator_token_id: the token that ends the first segment.
        position_period: n, how many positions were tiled: what the original reads.

    Raises:
        ValueError: a field is out of its bounds.
    """

    lsg_defaults: ClassVar[dict[str, Any]] = {**PATTERN_DEFAULTS, **SWITCH_DEFAULTS, **BACKEND_DEFAULT, **PIN_DEFAULTS}
    has_distance_bias: ClassVar[bool] = False  # whether the model adds one to the scores
    _auto_class: ClassVar[str] = "AutoConfig"  # save_pretrained copies the code of a class that has one

    def __init__(self, **kwargs: Any) -> None:
        if "lsg_num_pre_rounds" in kwargs:
            kwargs["lsh_num_pre_rounds"] = kwargs.pop("lsg_num_pre_rounds")
        kwargs.pop("base_model_prefix", None)
        fields = {name: kwargs.pop(name, default) for name, default in self.lsg_defaults.items()}
        super().__init__(**kwargs)
        if not hasattr(self, "tie_word_embeddings"):
            self.tie_word_embeddings = True  # CamembertConfig lacks it in transformers 5.0, which unties its head
        self.base_model_prefix = LSG_MARK
        for name, value in fields.items():
            setattr(self, name, value)
        self.check_lsg()

    @property
    def lsg_num_pre_rounds(self) -> int:
        """Another name of `lsh_num_pre_rounds`."""
        return self.lsh_num_pre_rounds

    @lsg_num_pre_rounds.setter
    def lsg_num_pre_rounds(self, value: int) -> None:
        self.lsh_num_pre_rounds = value

    @property
    def exact_length(self) -> int:
        """How many tokens a text may have to be read as by the original, where global 0 alone stands for token 0."""
        return 2 * self.block_size

    def check_lsg(self) -> None:
        """Raise ValueError, with the value, the rule and what is allowed, if a field is wrong."""
        check_integer("num_global_tokens", self.num_global_tokens, 1)
        for name, default in self.lsg_defaults.items():
            if isinstance(default, bool):
                check(isinstance(getattr(self, name), bool), name, getattr(self, name), "it must be true or false")
        chunk = getattr(self, "chunk_size_feed_forward", 0)
        check(
            chunk == 0,
            "chunk_size_feed_forward",
            chunk,
            "it must be 0: with global tokens, lengths are no multiples of a chunk",
        )
        rule = f"choose one of {', '.join(BACKEND_NAMES)}"
        check(self.lsg_backend in (*BACKEND_NAMES, *EARLIER_NAMES), "lsg_backend", self.lsg_backend, rule)
        check_integer("max_pinned_tokens", self.max_pinned_tokens, 1)
        for name, least in (("separator_token_id", 0), ("position_period", 1)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least)
        pattern = self.lsg_pattern()
        if self.pin_first_segment:
            self.check_pinning(pattern)

    def check_pinning(self, pattern: LSGPattern) -> None:
        """Raise ValueError if the first segment cannot be pinned with these fields."""
        rule = "causal models attend to what stands before a token only; set it to false"
        check(not pattern.is_causal, "pin_first_segment", True, rule)
        check(self.adaptive, "adaptive", self.adaptive, "with pin_first_segment it must be true")
        rule = "with pin_first_segment the token is needed that ends the first segment; set it"
        check(self.separator_token_id is not None, "separator_token_id", None, rule)
        rule = "with pin_first_segment it must be a token of the vocabulary"
        check(self.separator_token_id < self.vocab_size, "separator_token_id", self.separator_token_id, rule)
        rule = "with pin_first_segment the number of positions that were tiled is needed (512 of most models); set it"
        check(self.position_period is not None, "position_period", None, rule)
        reach = pinned_reach(pattern)
        allowed = self.position_period - self.max_pinned_tokens
        check(
            reach < allowed,  # else a token could share its position with a key in its reach
            "block_size",
            self.block_size,
            f"to pin, 2b - 1 + sf ({reach}) must be below position_period - max_pinned_tokens ({allowed}); "
            f"{describe_fitting(allowed)}",
        )

    def lsg_pattern(self) -> LSGPattern:
        """Return the attention's numbers, checked."""
        is_causal = getattr(self, "is_decoder", False)
        return LSGPattern(is_causal=is_causal, **{name: getattr(self, name) for name in PATTERN_DEFAULTS})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, and the whole auto_map: a model saved with one head can be loaded with any other."""
        return {**super().to_dict(), "auto_map": auto_map(type(self))}


def pinned_reach(pattern: LSGPattern) -> int:
    """Return how many tokens further a token's keys may be, on either side: 2b - 1 + s * f."""
    sparse = pattern.sparse_block_size * pattern.sparsity_factor if pattern.has_sparse else 0
    return 2 * pattern.block_size - 1 + sparse


def fitting_sizes(allowed: int) -> dict[str, Any] | None:
    """Return the sizes for pinning that measure best among those with a reach below `allowed`; None if none fit.

    Local attention alone with blocks of 64 tokens, half of that and so on, down to 4; it reaches 2b - 1.
    """
    b = next((b for b in (64, 32, 16, 8, 4) if 2 * b - 1 < allowed), None)
    return None if b is None else {"sparsity_type": "none", "block_size": b}


def describe_fitting(allowed: int) -> str:
    """Return which sizes fit, in words."""
    sizes = fitting_sizes(allowed)
    return (
        "no sizes fit, lower max_pinned_tokens"
        if sizes is None
        else "choose " + ", ".join(f"{k}={v!r}" for k, v in sizes.items())
    )


def auto_map(config_class: type) -> dict[str, str]:
    """Return config.json's auto_map, AutoClass name to "file.Class", for all classes of a config's modeling file."""
    module = sys.modules[config_class.__module__]
    file = module.__name__.rsplit(".", 1)[-1]
    classes = {"AutoConfig": config_class, **auto_classes(module, config_class)}
    return {name: f"{file}.{item.__name__}" for name, item in sorted(classes.items())}


def auto_classes(module: ModuleType, config_class: type | None = None) -> dict[str, type[PreTrainedModel]]:
    """Return the LSG models of a modeling file by the auto class that loads them.

    Args:
        module: the modeling file, or a user's with classes derived from ours.
        config_class: only models with this config; None for all.
    """
    models = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, PreTrainedModel)]
    ours = [item for item in models if issubclass(item.config_class or object, LSGConfigMixin)]
    chosen = [item for item in ours if config_class in (None, item.config_class)]
    named = {auto_class_of(item): item for item in chosen}
    return {name: named[name] for name in sorted(named.keys() - {None})}


def auto_class_of(model_class: type[PreTrainedModel]) -> str | None:
    """Return the auto class of a model class, None for one that is a part of others.

    It is what `register_for_auto_class` has set, or follows from how the name of the class ends, or that of a base.
    """
    if registered := vars(model_class).get("_auto_class"):
        return registered
    by_name = (auto_class_by_name(base.__name__) for base in model_class.__mro__)
    return next((name for name in by_name if name is not None and hasattr(transformers, name)), None)


def auto_class_by_name(name: str) -> str | None:
    """Return which auto class a model class of this name would have, by how transformers names its own."""
    if name.endswith(("ForConditionalGeneration", "MTModel")):
        return "AutoModelForSeq2SeqLM"
    if name.endswith("LMHeadModel"):
        return "AutoModelForCausalLM"
    _, separator, task = name.rpartition("For")
    if separator:
        return f"AutoModelFor{task}"
    return "AutoModel" if name.endswith("Model") and not name.endswith("PreTrainedModel") else None
