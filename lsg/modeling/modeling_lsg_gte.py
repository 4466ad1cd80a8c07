"""GTE with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import GteConfig
from transformers.models.gte import modeling_gte as dense

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


class LSGGteConfig(LSGRotaryConfigMixin, GteConfig):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGGteEmbeddings(LSGRotaryEmbeddingsMixin, dense.GteEmbeddings): ...


class LSGGteModel(LSGRotaryModelMixin, dense.GteModel):
    config_class = LSGGteConfig
    parts = {"GteEmbeddings": LSGGteEmbeddings}


class LSGGteHead(LSGHeadMixin):
    config_class = LSGGteConfig
    parts = {"GteModel": LSGGteModel}


class LSGGteForMaskedLM(LSGGteHead, dense.GteForMaskedLM): ...


class LSGGteForSequenceClassification(LSGGteHead, dense.GteForSequenceClassification): ...


class LSGGteForTokenClassification(LSGGteHead, dense.GteForTokenClassification): ...
