"""BERT-generation with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import BertGenerationConfig
from transformers.models.bert_generation import modeling_bert_generation as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import with_classes
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGBertGenerationConfig(LSGConfigMixin, BertGenerationConfig):
    __init__ = LSGConfigMixin.__init__


class LSGBertGenerationEmbeddings(LSGEmbeddingsMixin, dense.BertGenerationEmbeddings): ...


class LSGBertGenerationLayers(LSGEncoderMixin, dense.BertEncoder): ...


class LSGBertGenerationEncoder(LSGModelMixin, dense.BertGenerationEncoder):
    _auto_class = "AutoModel"
    config_class = LSGBertGenerationConfig
    parts = {"BertGenerationEmbeddings": LSGBertGenerationEmbeddings, "BertEncoder": LSGBertGenerationLayers}


class LSGBertGenerationDecoder(LSGHeadMixin, dense.BertGenerationDecoder):
    _auto_class = "AutoModelForCausalLM"
    config_class = LSGBertGenerationConfig
    parts = {"BertGenerationEncoder": LSGBertGenerationEncoder}
