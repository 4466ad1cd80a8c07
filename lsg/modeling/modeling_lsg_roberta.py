"""RoBERTa with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    RobertaConfig,
    RobertaForCausalLM,
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
)
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings, RobertaEncoder

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


class LSGRobertaConfig(LSGConfigMixin, RobertaConfig):
    """RobertaConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGRobertaEmbeddings(LSGEmbeddingsMixin, RobertaEmbeddings):
    """RobertaEmbeddings with global tokens in front."""


class LSGRobertaEncoder(LSGEncoderMixin, RobertaEncoder):
    """RobertaEncoder with LSG attention."""


class LSGRobertaModel(LSGModelMixin, RobertaModel):
    """RobertaModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGRobertaConfig
    embeddings_class = LSGRobertaEmbeddings
    encoder_class = LSGRobertaEncoder


class LSGRobertaHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGRobertaConfig
    lsg_model_class = LSGRobertaModel


class LSGRobertaForCausalLM(PositionsAfterPaddingMixin, LSGRobertaHead, RobertaForCausalLM):
    """RobertaForCausalLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"


class LSGRobertaForMaskedLM(LSGRobertaHead, RobertaForMaskedLM):
    """RobertaForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGRobertaForMultipleChoice(LSGRobertaHead, RobertaForMultipleChoice):
    """RobertaForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGRobertaForQuestionAnswering(LSGRobertaHead, RobertaForQuestionAnswering):
    """RobertaForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGRobertaForSequenceClassification(LSGRobertaHead, RobertaForSequenceClassification):
    """RobertaForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGRobertaForTokenClassification(LSGRobertaHead, RobertaForTokenClassification):
    """RobertaForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
