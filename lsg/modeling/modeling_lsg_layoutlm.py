"""LayoutLM with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import LayoutLMConfig
from transformers.models.layoutlm import modeling_layoutlm as dense

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


class LSGLayoutLMConfig(LSGConfigMixin, LayoutLMConfig):
    __init__ = LSGConfigMixin.__init__


class LSGLayoutLMEmbeddings(LSGEmbeddingsMixin, dense.LayoutLMEmbeddings): ...


class LSGLayoutLMEncoder(AdditiveMaskMixin, LSGEncoderMixin, dense.LayoutLMEncoder): ...


class LSGLayoutLMModel(AroundModelMixin, LSGModelMixin, KeywordsAround, dense.LayoutLMModel):
    config_class = LSGLayoutLMConfig
    parts = {"LayoutLMEmbeddings": LSGLayoutLMEmbeddings, "LayoutLMEncoder": LSGLayoutLMEncoder}


class LSGLayoutLMHead(LSGHeadMixin, KeywordsAround):
    config_class = LSGLayoutLMConfig
    parts = {"LayoutLMModel": LSGLayoutLMModel}


class LSGLayoutLMForMaskedLM(LSGLayoutLMHead, dense.LayoutLMForMaskedLM): ...


class LSGLayoutLMForQuestionAnswering(LSGLayoutLMHead, dense.LayoutLMForQuestionAnswering): ...


class LSGLayoutLMForSequenceClassification(LSGLayoutLMHead, dense.LayoutLMForSequenceClassification): ...


class LSGLayoutLMForTokenClassification(LSGLayoutLMHead, dense.LayoutLMForTokenClassification): ...
