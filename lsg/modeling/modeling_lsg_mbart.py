"""mBART with LSG attention in its encoder. Everything else is transformers' own."""

from transformers import MBartConfig
from transformers.models.mbart import modeling_mbart as dense

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


class LSGMBartConfig(LSGSeq2SeqConfigMixin, MBartConfig):
    __init__ = LSGConfigMixin.__init__


class LSGMBartPositions(LSGPositionsMixin, dense.MBartLearnedPositionalEmbedding): ...


class LSGMBartEncoder(LSGSeq2SeqEncoderMixin, dense.MBartEncoder):
    config_class = LSGMBartConfig
    parts = {"MBartLearnedPositionalEmbedding": LSGMBartPositions}


class LSGMBartModel(LSGSeq2SeqModelMixin, dense.MBartModel):
    config_class = LSGMBartConfig
    parts = {"MBartEncoder": LSGMBartEncoder}


class LSGMBartHead(LSGPreTrainedMixin):
    config_class = LSGMBartConfig
    parts = {"MBartModel": LSGMBartModel}


class LSGMBartForCausalLM(LSGPreTrainedMixin, dense.MBartForCausalLM):
    config_class = LSGMBartConfig


class LSGMBartForConditionalGeneration(LSGMBartHead, dense.MBartForConditionalGeneration): ...


class LSGMBartForQuestionAnswering(LSGMBartHead, dense.MBartForQuestionAnswering): ...


class LSGMBartForSequenceClassification(LSGMBartHead, dense.MBartForSequenceClassification): ...
