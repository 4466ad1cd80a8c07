"""The published import name: `from lsg_converter import LSGConverter`."""

from lsg import ConversionError, LSGConverter

__all__ = ["ConversionError", "LSGConverter"]
