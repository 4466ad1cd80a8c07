"""Block-local and LSG attention without the models. `from block_local_attention import *` brings torch along."""

import torch

from .layers import BlockLocalSelfAttention, LSGSelfAttention, block_local_attention

__all__ = ["BlockLocalSelfAttention", "LSGSelfAttention", "block_local_attention", "torch"]
