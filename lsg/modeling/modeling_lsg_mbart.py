"""mBART with LSG attention in its encoder. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    MBartConfig,
    MBartForCausalLM,
    MBartForConditionalGeneration,
    MBartForQuestionAnswering,
    MBartForSequenceClassification,
    MBartModel,
)
from transformers.models.mbart.modeling_mbart import MBartEncoder, MBartLearnedPositionalEmbedding

# all files of the remote code: out of a local folder, some 5.x versions copy only those that this file names
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_cache import TokenCache
from .lsg_config import LSGConfigMixin
from .lsg_encoder import LSGCheckedMixin
from .lsg_flex import attend_flex
from .lsg_outputs import cut_globals
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_seq2seq import (
    LSGPositionsMixin,
    LSGSeq2SeqConfigMixin,
    LSGSeq2SeqEncoderMixin,
    LSGSeq2SeqHeadMixin,
    LSGSeq2SeqModelMixin,
)
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGMBartConfig(LSGSeq2SeqConfigMixin, MBartConfig):
    """MBartConfig with the LSG fields, see LSGSeq2SeqConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGMBartPositions(LSGPositionsMixin, MBartLearnedPositionalEmbedding):
    """MBartLearnedPositionalEmbedding behind the global tokens."""


class LSGMBartEncoder(LSGSeq2SeqEncoderMixin, MBartEncoder):
    """MBartEncoder with LSG attention."""

    config_class = LSGMBartConfig
    positions_class = LSGMBartPositions


class LSGMBartModel(LSGSeq2SeqModelMixin, MBartModel):
    """MBartModel with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGMBartConfig
    encoder_class = LSGMBartEncoder


class LSGMBartHead(LSGSeq2SeqHeadMixin):
    """What all heads over encoder and decoder share."""

    config_class = LSGMBartConfig
    lsg_model_class = LSGMBartModel


class LSGMBartForCausalLM(LSGCheckedMixin, MBartForCausalLM):
    """The decoder alone: MBartForCausalLM with longer positions, and no LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"
    config_class = LSGMBartConfig


class LSGMBartForConditionalGeneration(LSGMBartHead, MBartForConditionalGeneration):
    """MBartForConditionalGeneration with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"


class LSGMBartForQuestionAnswering(LSGMBartHead, MBartForQuestionAnswering):
    """MBartForQuestionAnswering with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGMBartForSequenceClassification(LSGMBartHead, MBartForSequenceClassification):
    """MBartForSequenceClassification with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
