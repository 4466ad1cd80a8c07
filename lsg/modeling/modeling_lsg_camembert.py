"""CamemBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    CamembertConfig,
    CamembertForCausalLM,
    CamembertForMaskedLM,
    CamembertForMultipleChoice,
    CamembertForQuestionAnswering,
    CamembertForSequenceClassification,
    CamembertForTokenClassification,
    CamembertModel,
)
from transformers.models.camembert.modeling_camembert import CamembertEmbeddings, CamembertEncoder

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


class LSGCamembertConfig(LSGConfigMixin, CamembertConfig):
    """CamembertConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGCamembertEmbeddings(LSGEmbeddingsMixin, CamembertEmbeddings):
    """CamembertEmbeddings with global tokens in front."""


class LSGCamembertEncoder(LSGEncoderMixin, CamembertEncoder):
    """CamembertEncoder with LSG attention."""


class LSGCamembertModel(LSGModelMixin, CamembertModel):
    """CamembertModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGCamembertConfig
    embeddings_class = LSGCamembertEmbeddings
    encoder_class = LSGCamembertEncoder


class LSGCamembertHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGCamembertConfig
    lsg_model_class = LSGCamembertModel


class LSGCamembertForCausalLM(PositionsAfterPaddingMixin, LSGCamembertHead, CamembertForCausalLM):
    """CamembertForCausalLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"
    _tied_weights_keys = CamembertForMaskedLM._tied_weights_keys  # those of the causal class are wrong in 5.0


class LSGCamembertForMaskedLM(LSGCamembertHead, CamembertForMaskedLM):
    """CamembertForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGCamembertForMultipleChoice(LSGCamembertHead, CamembertForMultipleChoice):
    """CamembertForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGCamembertForQuestionAnswering(LSGCamembertHead, CamembertForQuestionAnswering):
    """CamembertForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGCamembertForSequenceClassification(LSGCamembertHead, CamembertForSequenceClassification):
    """CamembertForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGCamembertForTokenClassification(LSGCamembertHead, CamembertForTokenClassification):
    """CamembertForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
