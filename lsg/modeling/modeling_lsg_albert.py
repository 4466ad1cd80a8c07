"""ALBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import AlbertConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.albert import modeling_albert as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import with_classes
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGAlbertConfig(LSGConfigMixin, AlbertConfig):
    __init__ = LSGConfigMixin.__init__


class LSGAlbertEmbeddings(LSGEmbeddingsMixin, dense.AlbertEmbeddings): ...


class LSGAlbertLayerGroup(GradientCheckpointingLayer, dense.AlbertLayerGroup): ...


class LSGAlbertEncoder(LSGEncoderMixin, dense.AlbertTransformer):
    parts = {"AlbertLayerGroup": LSGAlbertLayerGroup}


class LSGAlbertModel(LSGModelMixin, dense.AlbertModel):
    supports_gradient_checkpointing = True
    config_class = LSGAlbertConfig
    parts = {"AlbertEmbeddings": LSGAlbertEmbeddings, "AlbertTransformer": LSGAlbertEncoder}


class LSGAlbertHead(LSGHeadMixin):
    supports_gradient_checkpointing = True
    config_class = LSGAlbertConfig
    parts = {"AlbertModel": LSGAlbertModel}


class LSGAlbertForMaskedLM(LSGAlbertHead, dense.AlbertForMaskedLM): ...


class LSGAlbertForMultipleChoice(LSGAlbertHead, dense.AlbertForMultipleChoice): ...


class LSGAlbertForPreTraining(LSGAlbertHead, dense.AlbertForPreTraining): ...


class LSGAlbertForQuestionAnswering(LSGAlbertHead, dense.AlbertForQuestionAnswering): ...


class LSGAlbertForSequenceClassification(LSGAlbertHead, dense.AlbertForSequenceClassification): ...


class LSGAlbertForTokenClassification(LSGAlbertHead, dense.AlbertForTokenClassification): ...
