"""Block-local and LSG attention without a model. `from block_local_attention import *` also imports torch."""

import torch

from lsg.modeling.lsg_pattern import LSGPattern

from .layers import BlockLocalSelfAttention, LSGSelfAttention, block_local_attention

__all__ = ["BlockLocalSelfAttention", "LSGPattern", "LSGSelfAttention", "block_local_attention", "torch"]
