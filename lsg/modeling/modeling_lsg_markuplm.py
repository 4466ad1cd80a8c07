"""MarkupLM with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import MarkupLMConfig
from transformers.models.markuplm import modeling_markuplm as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import AdditiveMaskMixin, AroundModelMixin, KeywordsAround
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGMarkupLMConfig(LSGConfigMixin, MarkupLMConfig):
    __init__ = LSGConfigMixin.__init__


class LSGMarkupLMEmbeddings(LSGEmbeddingsMixin, dense.MarkupLMEmbeddings): ...


class LSGMarkupLMEncoder(AdditiveMaskMixin, LSGEncoderMixin, dense.MarkupLMEncoder): ...


class LSGMarkupLMModel(AroundModelMixin, LSGModelMixin, KeywordsAround, dense.MarkupLMModel):
    config_class = LSGMarkupLMConfig
    supports_gradient_checkpointing = True  # its layers do
    parts = {"MarkupLMEmbeddings": LSGMarkupLMEmbeddings, "MarkupLMEncoder": LSGMarkupLMEncoder}


class LSGMarkupLMHead(LSGHeadMixin, KeywordsAround):
    config_class = LSGMarkupLMConfig
    supports_gradient_checkpointing = True
    parts = {"MarkupLMModel": LSGMarkupLMModel}


class LSGMarkupLMForQuestionAnswering(LSGMarkupLMHead, dense.MarkupLMForQuestionAnswering): ...


class LSGMarkupLMForSequenceClassification(LSGMarkupLMHead, dense.MarkupLMForSequenceClassification): ...


class LSGMarkupLMForTokenClassification(LSGMarkupLMHead, dense.MarkupLMForTokenClassification): ...
