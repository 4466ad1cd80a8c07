"""DistilBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import DistilBertConfig
from transformers.models.distilbert import modeling_distilbert as dense

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


class LSGDistilBertConfig(LSGConfigMixin, DistilBertConfig):
    __init__ = LSGConfigMixin.__init__


class LSGDistilBertEmbeddings(LSGEmbeddingsMixin, dense.Embeddings): ...


class LSGDistilBertEncoder(LSGEncoderMixin, dense.Transformer): ...


class LSGDistilBertModel(LSGModelMixin, dense.DistilBertModel):
    config_class = LSGDistilBertConfig
    parts = {"Embeddings": LSGDistilBertEmbeddings, "Transformer": LSGDistilBertEncoder}


class LSGDistilBertHead(LSGHeadMixin):
    config_class = LSGDistilBertConfig
    parts = {"DistilBertModel": LSGDistilBertModel}


class LSGDistilBertForMaskedLM(LSGDistilBertHead, dense.DistilBertForMaskedLM): ...


class LSGDistilBertForMultipleChoice(LSGDistilBertHead, dense.DistilBertForMultipleChoice): ...


class LSGDistilBertForQuestionAnswering(LSGDistilBertHead, dense.DistilBertForQuestionAnswering): ...


class LSGDistilBertForSequenceClassification(LSGDistilBertHead, dense.DistilBertForSequenceClassification): ...


class LSGDistilBertForTokenClassification(LSGDistilBertHead, dense.DistilBertForTokenClassification): ...
