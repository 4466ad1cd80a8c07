"""RoBERTa-PreLayerNorm with LSG attention: config, model and heads. Everything else is transformers' own."""

from transformers import RobertaPreLayerNormConfig
from transformers.models.roberta_prelayernorm import modeling_roberta_prelayernorm as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGEmbeddingsMixin, LSGEncoderMixin, LSGHeadMixin, LSGModelMixin, PositionsAfterPaddingMixin
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


class LSGRobertaPreLayerNormConfig(LSGConfigMixin, RobertaPreLayerNormConfig):
    __init__ = LSGConfigMixin.__init__


class Embeddings(LSGEmbeddingsMixin, dense.RobertaPreLayerNormEmbeddings): ...


class Encoder(LSGEncoderMixin, dense.RobertaPreLayerNormEncoder): ...


class LSGRobertaPreLayerNormModel(LSGModelMixin, dense.RobertaPreLayerNormModel):
    config_class = LSGRobertaPreLayerNormConfig
    parts = {"RobertaPreLayerNormEmbeddings": Embeddings, "RobertaPreLayerNormEncoder": Encoder}


class Head(LSGHeadMixin):
    config_class = LSGRobertaPreLayerNormConfig
    parts = {"RobertaPreLayerNormModel": LSGRobertaPreLayerNormModel}


class LSGRobertaPreLayerNormForCausalLM(PositionsAfterPaddingMixin, Head, dense.RobertaPreLayerNormForCausalLM): ...


class LSGRobertaPreLayerNormForMaskedLM(Head, dense.RobertaPreLayerNormForMaskedLM): ...


class LSGRobertaPreLayerNormForMultipleChoice(Head, dense.RobertaPreLayerNormForMultipleChoice): ...


class LSGRobertaPreLayerNormForQuestionAnswering(Head, dense.RobertaPreLayerNormForQuestionAnswering): ...


class LSGRobertaPreLayerNormForSequenceClassification(Head, dense.RobertaPreLayerNormForSequenceClassification): ...


class LSGRobertaPreLayerNormForTokenClassification(Head, dense.RobertaPreLayerNormForTokenClassification): ...
