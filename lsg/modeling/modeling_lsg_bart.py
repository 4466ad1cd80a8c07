"""BART with LSG attention in its encoder. Everything else is transformers' own."""

from transformers import BartConfig
from transformers.models.bart import modeling_bart as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGPreTrainedMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import with_classes
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_seq2seq import LSGPositionsMixin, LSGSeq2SeqConfigMixin, LSGSeq2SeqEncoderMixin, LSGSeq2SeqModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGBartConfig(LSGSeq2SeqConfigMixin, BartConfig):
    __init__ = LSGConfigMixin.__init__


class LSGBartPositions(LSGPositionsMixin, dense.BartLearnedPositionalEmbedding): ...


class LSGBartEncoder(LSGSeq2SeqEncoderMixin, dense.BartEncoder):
    config_class = LSGBartConfig
    parts = {"BartLearnedPositionalEmbedding": LSGBartPositions}


class LSGBartModel(LSGSeq2SeqModelMixin, dense.BartModel):
    config_class = LSGBartConfig
    parts = {"BartEncoder": LSGBartEncoder}


class LSGBartHead(LSGPreTrainedMixin):
    config_class = LSGBartConfig
    parts = {"BartModel": LSGBartModel}


class LSGBartForCausalLM(LSGPreTrainedMixin, dense.BartForCausalLM):
    config_class = LSGBartConfig


class LSGBartForConditionalGeneration(LSGBartHead, dense.BartForConditionalGeneration): ...


class LSGBartForQuestionAnswering(LSGBartHead, dense.BartForQuestionAnswering): ...


class LSGBartForSequenceClassification(LSGBartHead, dense.BartForSequenceClassification): ...
