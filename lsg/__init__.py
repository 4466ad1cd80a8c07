"""Convert Hugging Face checkpoints to Local + Sparse + Global (LSG) attention, arXiv 2210.15497."""

from .converter import LSGConverter
from .errors import ConversionError
from .lsg_attention import lsg_attention
from .lsg_pattern import SPARSITY_TYPES, LSGPattern
from .model_types import MODEL_TYPES

__all__ = ["MODEL_TYPES", "SPARSITY_TYPES", "ConversionError", "LSGConverter", "LSGPattern", "lsg_attention"]
