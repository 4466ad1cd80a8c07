"""BERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
)
from transformers.models.bert.modeling_bert import BertEmbeddings, BertEncoder

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


class LSGBertConfig(LSGConfigMixin, BertConfig):
    """BertConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGBertEmbeddings(LSGEmbeddingsMixin, BertEmbeddings):
    """BertEmbeddings with global tokens in front."""


class LSGBertEncoder(LSGEncoderMixin, BertEncoder):
    """BertEncoder with LSG attention."""


class LSGBertModel(LSGModelMixin, BertModel):
    """BertModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGBertConfig
    embeddings_class = LSGBertEmbeddings
    encoder_class = LSGBertEncoder


class LSGBertHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGBertConfig
    lsg_model_class = LSGBertModel


class LSGBertLMHeadModel(LSGBertHead, BertLMHeadModel):
    """BertLMHeadModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"


class LSGBertForMaskedLM(LSGBertHead, BertForMaskedLM):
    """BertForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGBertForMultipleChoice(LSGBertHead, BertForMultipleChoice):
    """BertForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGBertForNextSentencePrediction(LSGBertHead, BertForNextSentencePrediction):
    """BertForNextSentencePrediction with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForNextSentencePrediction"


class LSGBertForPreTraining(LSGBertHead, BertForPreTraining):
    """BertForPreTraining with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForPreTraining"


class LSGBertForQuestionAnswering(LSGBertHead, BertForQuestionAnswering):
    """BertForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGBertForSequenceClassification(LSGBertHead, BertForSequenceClassification):
    """BertForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGBertForTokenClassification(LSGBertHead, BertForTokenClassification):
    """BertForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
