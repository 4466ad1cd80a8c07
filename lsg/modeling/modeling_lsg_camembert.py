"""CamemBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import CamembertConfig
from transformers.models.camembert import modeling_camembert as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import (
    LSGEmbeddingsMixin,
    LSGEncoderMixin,
    LSGHeadMixin,
    LSGModelMixin,
    PositionsAfterPaddingMixin,
)
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


class LSGCamembertConfig(LSGConfigMixin, CamembertConfig):
    __init__ = LSGConfigMixin.__init__


class LSGCamembertEmbeddings(LSGEmbeddingsMixin, dense.CamembertEmbeddings): ...


class LSGCamembertEncoder(LSGEncoderMixin, dense.CamembertEncoder): ...


class LSGCamembertModel(LSGModelMixin, dense.CamembertModel):
    config_class = LSGCamembertConfig
    parts = {"CamembertEmbeddings": LSGCamembertEmbeddings, "CamembertEncoder": LSGCamembertEncoder}


class LSGCamembertHead(LSGHeadMixin):
    config_class = LSGCamembertConfig
    parts = {"CamembertModel": LSGCamembertModel}


class LSGCamembertForCausalLM(PositionsAfterPaddingMixin, LSGCamembertHead, dense.CamembertForCausalLM):
    _tied_weights_keys = dense.CamembertForMaskedLM._tied_weights_keys  # those of the causal class are wrong in 5.0


class LSGCamembertForMaskedLM(LSGCamembertHead, dense.CamembertForMaskedLM): ...


class LSGCamembertForMultipleChoice(LSGCamembertHead, dense.CamembertForMultipleChoice):
    parts = {"CamembertModel": lambda config, **_: LSGCamembertModel(config)}  # with a pooler, which 5.0 forgot


class LSGCamembertForQuestionAnswering(LSGCamembertHead, dense.CamembertForQuestionAnswering): ...


class LSGCamembertForSequenceClassification(LSGCamembertHead, dense.CamembertForSequenceClassification): ...


class LSGCamembertForTokenClassification(LSGCamembertHead, dense.CamembertForTokenClassification): ...
