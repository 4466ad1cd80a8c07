"""ELECTRA with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    ElectraConfig,
    ElectraForCausalLM,
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)
from transformers.models.electra.modeling_electra import ElectraEmbeddings, ElectraEncoder

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


class LSGElectraConfig(LSGConfigMixin, ElectraConfig):
    """ElectraConfig with the LSG fields, see LSGConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGElectraEmbeddings(LSGEmbeddingsMixin, ElectraEmbeddings):
    """ElectraEmbeddings with global tokens in front."""


class LSGElectraEncoder(LSGEncoderMixin, ElectraEncoder):
    """ElectraEncoder with LSG attention."""


class LSGElectraModel(LSGModelMixin, ElectraModel):
    """ElectraModel with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGElectraConfig
    embeddings_class = LSGElectraEmbeddings
    encoder_class = LSGElectraEncoder


class LSGElectraHead(LSGHeadMixin):
    """What all heads share."""

    config_class = LSGElectraConfig
    lsg_model_class = LSGElectraModel


class LSGElectraForCausalLM(LSGElectraHead, ElectraForCausalLM):
    """ElectraForCausalLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"


class LSGElectraForMaskedLM(LSGElectraHead, ElectraForMaskedLM):
    """ElectraForMaskedLM with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMaskedLM"


class LSGElectraForMultipleChoice(LSGElectraHead, ElectraForMultipleChoice):
    """ElectraForMultipleChoice with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForMultipleChoice"


class LSGElectraForPreTraining(LSGElectraHead, ElectraForPreTraining):
    """ElectraForPreTraining with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForPreTraining"


class LSGElectraForQuestionAnswering(LSGElectraHead, ElectraForQuestionAnswering):
    """ElectraForQuestionAnswering with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGElectraForSequenceClassification(LSGElectraHead, ElectraForSequenceClassification):
    """ElectraForSequenceClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"


class LSGElectraForTokenClassification(LSGElectraHead, ElectraForTokenClassification):
    """ElectraForTokenClassification with LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
