"""PLBart with LSG attention in its encoder. Everything else is transformers' own."""

from transformers import PLBartConfig
from transformers.models.plbart import modeling_plbart as dense

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


class LSGPLBartConfig(LSGSeq2SeqConfigMixin, PLBartConfig):
    __init__ = LSGConfigMixin.__init__


class LSGPLBartPositions(LSGPositionsMixin, dense.PLBartLearnedPositionalEmbedding): ...


class LSGPLBartEncoder(LSGSeq2SeqEncoderMixin, dense.PLBartEncoder):
    config_class = LSGPLBartConfig
    parts = {"PLBartLearnedPositionalEmbedding": LSGPLBartPositions}


class LSGPLBartModel(LSGSeq2SeqModelMixin, dense.PLBartModel):
    config_class = LSGPLBartConfig
    parts = {"PLBartEncoder": LSGPLBartEncoder}


class LSGPLBartHead(LSGPreTrainedMixin):
    config_class = LSGPLBartConfig
    parts = {"PLBartModel": LSGPLBartModel}


class LSGPLBartForCausalLM(LSGPreTrainedMixin, dense.PLBartForCausalLM):
    config_class = LSGPLBartConfig


class LSGPLBartForConditionalGeneration(LSGPLBartHead, dense.PLBartForConditionalGeneration): ...


class LSGPLBartForSequenceClassification(LSGPLBartHead, dense.PLBartForSequenceClassification): ...
