"""RoBERTa with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import RobertaConfig
from transformers.models.roberta import modeling_roberta as dense

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


class LSGRobertaConfig(LSGConfigMixin, RobertaConfig):
    __init__ = LSGConfigMixin.__init__


class LSGRobertaEmbeddings(LSGEmbeddingsMixin, dense.RobertaEmbeddings): ...


class LSGRobertaEncoder(LSGEncoderMixin, dense.RobertaEncoder): ...


class LSGRobertaModel(LSGModelMixin, dense.RobertaModel):
    config_class = LSGRobertaConfig
    parts = {"RobertaEmbeddings": LSGRobertaEmbeddings, "RobertaEncoder": LSGRobertaEncoder}


class LSGRobertaHead(LSGHeadMixin):
    config_class = LSGRobertaConfig
    parts = {"RobertaModel": LSGRobertaModel}


class LSGRobertaForCausalLM(PositionsAfterPaddingMixin, LSGRobertaHead, dense.RobertaForCausalLM): ...


class LSGRobertaForMaskedLM(LSGRobertaHead, dense.RobertaForMaskedLM): ...


class LSGRobertaForMultipleChoice(LSGRobertaHead, dense.RobertaForMultipleChoice): ...


class LSGRobertaForQuestionAnswering(LSGRobertaHead, dense.RobertaForQuestionAnswering): ...


class LSGRobertaForSequenceClassification(LSGRobertaHead, dense.RobertaForSequenceClassification): ...


class LSGRobertaForTokenClassification(LSGRobertaHead, dense.RobertaForTokenClassification): ...
