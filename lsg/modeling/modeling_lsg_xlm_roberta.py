"""XLM-RoBERTa with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import XLMRobertaConfig
from transformers.models.xlm_roberta import modeling_xlm_roberta as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import (
    LSGEmbeddingsMixin,
    LSGEncoderMixin,
    LSGHeadMixin,
    LSGModelMixin,
    PositionsAfterPaddingMixin,
)
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


class LSGXLMRobertaConfig(LSGConfigMixin, XLMRobertaConfig):
    __init__ = LSGConfigMixin.__init__


class LSGXLMRobertaEmbeddings(LSGEmbeddingsMixin, dense.XLMRobertaEmbeddings): ...


class LSGXLMRobertaEncoder(LSGEncoderMixin, dense.XLMRobertaEncoder): ...


class LSGXLMRobertaModel(LSGModelMixin, dense.XLMRobertaModel):
    config_class = LSGXLMRobertaConfig
    parts = {"XLMRobertaEmbeddings": LSGXLMRobertaEmbeddings, "XLMRobertaEncoder": LSGXLMRobertaEncoder}


class LSGXLMRobertaHead(LSGHeadMixin):
    config_class = LSGXLMRobertaConfig
    parts = {"XLMRobertaModel": LSGXLMRobertaModel}


class LSGXLMRobertaForCausalLM(PositionsAfterPaddingMixin, LSGXLMRobertaHead, dense.XLMRobertaForCausalLM): ...


class LSGXLMRobertaForMaskedLM(LSGXLMRobertaHead, dense.XLMRobertaForMaskedLM): ...


class LSGXLMRobertaForMultipleChoice(LSGXLMRobertaHead, dense.XLMRobertaForMultipleChoice):
    parts = {"XLMRobertaModel": lambda config, **_: LSGXLMRobertaModel(config)}  # with a pooler, which 5.0 forgot


class LSGXLMRobertaForQuestionAnswering(LSGXLMRobertaHead, dense.XLMRobertaForQuestionAnswering): ...


class LSGXLMRobertaForSequenceClassification(LSGXLMRobertaHead, dense.XLMRobertaForSequenceClassification): ...


class LSGXLMRobertaForTokenClassification(LSGXLMRobertaHead, dense.XLMRobertaForTokenClassification): ...
