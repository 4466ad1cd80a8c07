"""XLM-RoBERTa with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    XLMRobertaConfig,
    XLMRobertaForCausalLM,
    XLMRobertaForMaskedLM,
    XLMRobertaForMultipleChoice,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
)
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings, XLMRobertaEncoder

# all files of the remote code: out of a local folder, some 5.x versions copy only those that this file names
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_cache import TokenCache
from .lsg_config import LSGConfigMixin
from .lsg_encoder import (
    LSGEmbeddingsMixin,
    LSGEncoderMixin,
    LSGHeadMixin,
    LSGModelMixin,
    PositionsAfterPaddingMixin,
)
from .lsg_flex import attend_flex
from .lsg_outputs import cut_globals
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGXLMRobertaConfig(LSGConfigMixin, XLMRobertaConfig):
    """XLMRobertaConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGXLMRobertaEmbeddings(LSGEmbeddingsMixin, XLMRobertaEmbeddings):
    """XLMRobertaEmbeddings with global tokens in front."""


class LSGXLMRobertaEncoder(LSGEncoderMixin, XLMRobertaEncoder):
    """XLMRobertaEncoder with LSG attention."""


class LSGXLMRobertaModel(LSGModelMixin, XLMRobertaModel):
    """XLMRobertaModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGXLMRobertaConfig
    embeddings_class = LSGXLMRobertaEmbeddings
    encoder_class = LSGXLMRobertaEncoder


class LSGXLMRobertaHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGXLMRobertaConfig
    lsg_model_class = LSGXLMRobertaModel


class LSGXLMRobertaForCausalLM(PositionsAfterPaddingMixin, LSGXLMRobertaHead, XLMRobertaForCausalLM):
    """XLMRobertaForCausalLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"


class LSGXLMRobertaForMaskedLM(LSGXLMRobertaHead, XLMRobertaForMaskedLM):
    """XLMRobertaForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGXLMRobertaForMultipleChoice(LSGXLMRobertaHead, XLMRobertaForMultipleChoice):
    """XLMRobertaForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGXLMRobertaForQuestionAnswering(LSGXLMRobertaHead, XLMRobertaForQuestionAnswering):
    """XLMRobertaForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGXLMRobertaForSequenceClassification(LSGXLMRobertaHead, XLMRobertaForSequenceClassification):
    """XLMRobertaForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGXLMRobertaForTokenClassification(LSGXLMRobertaHead, XLMRobertaForTokenClassification):
    """XLMRobertaForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
