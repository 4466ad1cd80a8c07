"""BART with LSG attention in its encoder. Everything else is transformers' own."""

from typing import ClassVar

from transformers import (
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BartModel,
)
from transformers.models.bart.modeling_bart import BartEncoder, BartLearnedPositionalEmbedding

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


class LSGBartConfig(LSGSeq2SeqConfigMixin, BartConfig):
    """BartConfig with the LSG fields, see LSGSeq2SeqConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGBartPositions(LSGPositionsMixin, BartLearnedPositionalEmbedding):
    """BartLearnedPositionalEmbedding behind the global tokens."""


class LSGBartEncoder(LSGSeq2SeqEncoderMixin, BartEncoder):
    """BartEncoder with LSG attention."""

    config_class = LSGBartConfig
    positions_class = LSGBartPositions


class LSGBartModel(LSGSeq2SeqModelMixin, BartModel):
    """BartModel with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGBartConfig
    encoder_class = LSGBartEncoder


class LSGBartHead(LSGSeq2SeqHeadMixin):
    """What all heads over encoder and decoder share."""

    config_class = LSGBartConfig
    lsg_model_class = LSGBartModel


class LSGBartForCausalLM(LSGCheckedMixin, BartForCausalLM):
    """The decoder alone: BartForCausalLM with longer positions, and no LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"
    config_class = LSGBartConfig


class LSGBartForConditionalGeneration(LSGBartHead, BartForConditionalGeneration):
    """BartForConditionalGeneration with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"


class LSGBartForQuestionAnswering(LSGBartHead, BartForQuestionAnswering):
    """BartForQuestionAnswering with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"


class LSGBartForSequenceClassification(LSGBartHead, BartForSequenceClassification):
    """BartForSequenceClassification with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
