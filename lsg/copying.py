"""Copy a model's weights into the LSG class of the same architecture."""

import copy
from typing import Any

from transformers import PreTrainedModel

from .errors import ConversionError, one_line
from .quiet import quiet


def copy_into(model_class: type[PreTrainedModel], config: Any, model: PreTrainedModel, is_lsg: bool) -> PreTrainedModel:
    """Return a model of `model_class` with a copy of the model's weights.

    Raises:
        ConversionError: the model's weights are not named as in transformers (adapters, quantized layers).
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with quiet():
        loaded: Any = model_class.from_pretrained(
            None, config=config, state_dict=weights, dtype=model.dtype, output_loading_info=True
        )
    copied, info = loaded
    strange = sorted({name for name in info["missing_keys"] if is_lsg or "global_embeddings" not in name})
    strange = strange or sorted(info["unexpected_keys"])
    if strange:
        raise ConversionError(
            f"the model's weights are not those of {model_class.__name__} (merge adapters): {one_line(strange[0])}"
        )
    share_as(model, copied)
    copied.eval()
    if copied.can_generate():
        copied.generation_config = copy.deepcopy(model.generation_config)
    return copied


def share_as(model: PreTrainedModel, copied: PreTrainedModel) -> None:
    """Let the copy's weights be shared where the model's are: transformers 5.0 loads those of RoBERTa's head twice."""
    names: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(weight), name)
        if first != name:
            module, _, own = name.rpartition(".")
            setattr(copied.get_submodule(module), own, copied.get_parameter(first))
