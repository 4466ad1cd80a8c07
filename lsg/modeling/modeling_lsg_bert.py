"""BERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import BertConfig
from transformers.models.bert import modeling_bert as dense

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


class LSGBertConfig(LSGConfigMixin, BertConfig):
    __init__ = LSGConfigMixin.__init__


class LSGBertEmbeddings(LSGEmbeddingsMixin, dense.BertEmbeddings): ...


class LSGBertEncoder(LSGEncoderMixin, dense.BertEncoder): ...


class LSGBertModel(LSGModelMixin, dense.BertModel):
    config_class = LSGBertConfig
    parts = {"BertEmbeddings": LSGBertEmbeddings, "BertEncoder": LSGBertEncoder}


class LSGBertHead(LSGHeadMixin):
    config_class = LSGBertConfig
    parts = {"BertModel": LSGBertModel}


class LSGBertLMHeadModel(LSGBertHead, dense.BertLMHeadModel): ...


class LSGBertForMaskedLM(LSGBertHead, dense.BertForMaskedLM): ...


class LSGBertForMultipleChoice(LSGBertHead, dense.BertForMultipleChoice): ...


class LSGBertForNextSentencePrediction(LSGBertHead, dense.BertForNextSentencePrediction): ...


class LSGBertForPreTraining(LSGBertHead, dense.BertForPreTraining): ...


class LSGBertForQuestionAnswering(LSGBertHead, dense.BertForQuestionAnswering): ...


class LSGBertForSequenceClassification(LSGBertHead, dense.BertForSequenceClassification): ...


class LSGBertForTokenClassification(LSGBertHead, dense.BertForTokenClassification): ...
