"""MPNet with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import Any

import torch
from torch import Tensor
from transformers import MPNetConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mpnet import modeling_mpnet as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention, lsg_attention_forward
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import AdditiveMaskMixin, AroundModelMixin, KeywordsAround, PartsMixin
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGMPNetConfig(LSGConfigMixin, MPNetConfig):
    __init__ = LSGConfigMixin.__init__
    has_distance_bias = True


class LSGMPNetEmbeddings(LSGEmbeddingsMixin, dense.MPNetEmbeddings): ...


class LSGMPNetSelfAttention(dense.MPNetSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config

    def forward(self, hidden_states: Tensor, mask: Any = None, table: Any = None, **kwargs: Any) -> tuple[Tensor]:
        """Return the output (n, g + t, D); the table is what the encoder's `compute_position_bias` returns."""
        heads = -1, self.attention_head_size
        query, key, value = (x(hidden_states).unflatten(-1, heads).transpose(1, 2) for x in (self.q, self.k, self.v))
        dropout = self.dropout.p if self.training else 0.0
        output, _ = lsg_attention_forward(self, query, key, value, mask, dropout=dropout, distance_bias=table)
        return (self.o(output.flatten(2)),)


class LSGMPNetAttention(PartsMixin, dense.MPNetAttention):
    parts = {"MPNetSelfAttention": LSGMPNetSelfAttention}


class LSGMPNetLayer(PartsMixin, GradientCheckpointingLayer, dense.MPNetLayer):
    parts = {"MPNetAttention": LSGMPNetAttention}


class LSGMPNetEncoder(AdditiveMaskMixin, LSGEncoderMixin, dense.MPNetEncoder):
    parts = {"MPNetLayer": LSGMPNetLayer}

    def compute_position_bias(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the bias by distance, (h, 2D + 1), which the original spreads over (n, h, t, t)."""
        distances = torch.arange(-128, 129, device=x.device)  # those further away share the buckets at either end
        return self.relative_attention_bias(self.relative_position_bucket(distances)).T


class LSGMPNetModel(AroundModelMixin, LSGModelMixin, KeywordsAround, dense.MPNetModel):
    config_class = LSGMPNetConfig
    supports_gradient_checkpointing = True
    parts = {"MPNetEmbeddings": LSGMPNetEmbeddings, "MPNetEncoder": LSGMPNetEncoder}


class LSGMPNetHead(LSGHeadMixin, KeywordsAround):
    config_class = LSGMPNetConfig
    supports_gradient_checkpointing = True
    parts = {"MPNetModel": LSGMPNetModel}


class LSGMPNetForMaskedLM(LSGMPNetHead, dense.MPNetForMaskedLM): ...


class LSGMPNetForMultipleChoice(LSGMPNetHead, dense.MPNetForMultipleChoice): ...


class LSGMPNetForQuestionAnswering(LSGMPNetHead, dense.MPNetForQuestionAnswering): ...


class LSGMPNetForSequenceClassification(LSGMPNetHead, dense.MPNetForSequenceClassification): ...


class LSGMPNetForTokenClassification(LSGMPNetHead, dense.MPNetForTokenClassification): ...
