"""XLM-RoBERTa-XL with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import XLMRobertaXLConfig
from transformers.models.xlm_roberta_xl import modeling_xlm_roberta_xl as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin, PositionsAfterPaddingMixin
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


class LSGXLMRobertaXLConfig(LSGConfigMixin, XLMRobertaXLConfig):
    __init__ = LSGConfigMixin.__init__


class LSGXLMRobertaXLEmbeddings(LSGEmbeddingsMixin, dense.XLMRobertaXLEmbeddings): ...


class LSGXLMRobertaXLEncoder(LSGEncoderMixin, dense.XLMRobertaXLEncoder): ...


class LSGXLMRobertaXLModel(LSGModelMixin, dense.XLMRobertaXLModel):
    config_class = LSGXLMRobertaXLConfig
    parts = {"XLMRobertaXLEmbeddings": LSGXLMRobertaXLEmbeddings, "XLMRobertaXLEncoder": LSGXLMRobertaXLEncoder}


class LSGXLMRobertaXLHead(LSGHeadMixin):
    config_class = LSGXLMRobertaXLConfig
    parts = {"XLMRobertaXLModel": LSGXLMRobertaXLModel}


class LSGXLMRobertaXLForCausalLM(PositionsAfterPaddingMixin, LSGXLMRobertaXLHead, dense.XLMRobertaXLForCausalLM): ...


class LSGXLMRobertaXLForMaskedLM(LSGXLMRobertaXLHead, dense.XLMRobertaXLForMaskedLM): ...


class LSGXLMRobertaXLForMultipleChoice(LSGXLMRobertaXLHead, dense.XLMRobertaXLForMultipleChoice): ...


class LSGXLMRobertaXLForQuestionAnswering(LSGXLMRobertaXLHead, dense.XLMRobertaXLForQuestionAnswering): ...


class LSGXLMRobertaXLForSequenceClassification(LSGXLMRobertaXLHead, dense.XLMRobertaXLForSequenceClassification): ...


class LSGXLMRobertaXLForTokenClassification(LSGXLMRobertaXLHead, dense.XLMRobertaXLForTokenClassification): ...
