"""NomicBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import NomicBertConfig
from transformers.models.nomic_bert import modeling_nomic_bert as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGHeadMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import with_classes
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_rotary import LSGRotaryConfigMixin, LSGRotaryEmbeddingsMixin, LSGRotaryModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGNomicBertConfig(LSGRotaryConfigMixin, NomicBertConfig):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGNomicBertEmbeddings(LSGRotaryEmbeddingsMixin, dense.NomicBertEmbeddings): ...


class LSGNomicBertModel(LSGRotaryModelMixin, dense.NomicBertModel):
    config_class = LSGNomicBertConfig
    parts = {"NomicBertEmbeddings": LSGNomicBertEmbeddings}


class LSGNomicBertHead(LSGHeadMixin):
    config_class = LSGNomicBertConfig
    parts = {"NomicBertModel": LSGNomicBertModel}


class LSGNomicBertForMaskedLM(LSGNomicBertHead, dense.NomicBertForMaskedLM): ...


class LSGNomicBertForSequenceClassification(LSGNomicBertHead, dense.NomicBertForSequenceClassification): ...


class LSGNomicBertForTokenClassification(LSGNomicBertHead, dense.NomicBertForTokenClassification): ...
