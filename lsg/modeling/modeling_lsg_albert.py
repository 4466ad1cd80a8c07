"""ALBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import Any, ClassVar

from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForPreTraining,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.albert.modeling_albert import AlbertEmbeddings, AlbertLayerGroup, AlbertTransformer

# all files of the remote code: out of a local folder, some 5.x versions copy only those that this file names
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_cache import TokenCache
from .lsg_config import LSGConfigMixin
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin
from .lsg_flex import attend_flex
from .lsg_outputs import cut_globals
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGAlbertConfig(LSGConfigMixin, AlbertConfig):
    """AlbertConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGAlbertEmbeddings(LSGEmbeddingsMixin, AlbertEmbeddings):
    """AlbertEmbeddings with global tokens in front."""


class LSGAlbertLayerGroup(GradientCheckpointingLayer, AlbertLayerGroup):
    """AlbertLayerGroup that can be checkpointed, as transformers' own cannot."""


class LSGAlbertEncoder(LSGEncoderMixin, AlbertTransformer):
    """AlbertTransformer with LSG attention."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        groups = [LSGAlbertLayerGroup(config) for _ in range(config.num_hidden_groups)]
        self.albert_layer_groups = nn.ModuleList(groups)


class LSGAlbertModel(LSGModelMixin, AlbertModel):
    """AlbertModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    supports_gradient_checkpointing = True
    config_class = LSGAlbertConfig
    embeddings_class = LSGAlbertEmbeddings
    encoder_class = LSGAlbertEncoder


class LSGAlbertHead(LSGHeadMixin):
    """What all heads share."""

    supports_gradient_checkpointing = True
    config_class = LSGAlbertConfig
    lsg_model_class = LSGAlbertModel


class LSGAlbertForMaskedLM(LSGAlbertHead, AlbertForMaskedLM):
    """AlbertForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGAlbertForMultipleChoice(LSGAlbertHead, AlbertForMultipleChoice):
    """AlbertForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGAlbertForPreTraining(LSGAlbertHead, AlbertForPreTraining):
    """AlbertForPreTraining with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForPreTraining"


class LSGAlbertForQuestionAnswering(LSGAlbertHead, AlbertForQuestionAnswering):
    """AlbertForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGAlbertForSequenceClassification(LSGAlbertHead, AlbertForSequenceClassification):
    """AlbertForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGAlbertForTokenClassification(LSGAlbertHead, AlbertForTokenClassification):
    """AlbertForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
