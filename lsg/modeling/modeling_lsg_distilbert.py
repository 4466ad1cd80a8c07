"""DistilBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
)
from transformers.models.distilbert.modeling_distilbert import Embeddings, Transformer

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


class LSGDistilBertConfig(LSGConfigMixin, DistilBertConfig):
    """DistilBertConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGDistilBertEmbeddings(LSGEmbeddingsMixin, Embeddings):
    """Embeddings with global tokens in front."""


class LSGDistilBertEncoder(LSGEncoderMixin, Transformer):
    """Transformer with LSG attention."""


class LSGDistilBertModel(LSGModelMixin, DistilBertModel):
    """DistilBertModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGDistilBertConfig
    embeddings_class = LSGDistilBertEmbeddings
    encoder_class = LSGDistilBertEncoder
    encoder_name: ClassVar[str] = "transformer"


class LSGDistilBertHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGDistilBertConfig
    lsg_model_class = LSGDistilBertModel


class LSGDistilBertForMaskedLM(LSGDistilBertHead, DistilBertForMaskedLM):
    """DistilBertForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGDistilBertForMultipleChoice(LSGDistilBertHead, DistilBertForMultipleChoice):
    """DistilBertForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGDistilBertForQuestionAnswering(LSGDistilBertHead, DistilBertForQuestionAnswering):
    """DistilBertForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGDistilBertForSequenceClassification(LSGDistilBertHead, DistilBertForSequenceClassification):
    """DistilBertForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGDistilBertForTokenClassification(LSGDistilBertHead, DistilBertForTokenClassification):
    """DistilBertForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
