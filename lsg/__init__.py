"""Convert Hugging Face checkpoints to Local + Sparse + Global (LSG) attention, arXiv 2210.15497."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .converter import LSGConverter
    from .errors import ConversionError
    from .model_types import MODEL_TYPES
    from .modeling.lsg_attention import lsg_attention
    from .modeling.lsg_pattern import SPARSITY_TYPES, LSGPattern
    from .onnx_output import export_onnx

__all__ = [
    "MODEL_TYPES",
    "SPARSITY_TYPES",
    "ConversionError",
    "LSGConverter",
    "LSGPattern",
    "export_onnx",
    "lsg_attention",
]
__version__ = "1.0.0"

MODULES = {
    "LSGConverter": "converter",
    "ConversionError": "errors",
    "MODEL_TYPES": "model_types",
    "lsg_attention": "modeling.lsg_attention",
    "SPARSITY_TYPES": "modeling.lsg_pattern",
    "LSGPattern": "modeling.lsg_pattern",
    "export_onnx": "onnx_output",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: torch takes seconds to import, and `--help` needs none of it."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    """Return the names of this module, those that are not imported yet included."""
    return sorted({*globals(), *MODULES})
