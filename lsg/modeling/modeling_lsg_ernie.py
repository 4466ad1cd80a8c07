"""ERNIE with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import ErnieConfig
from transformers.models.ernie import modeling_ernie as dense

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


class LSGErnieConfig(LSGConfigMixin, ErnieConfig):
    __init__ = LSGConfigMixin.__init__


class LSGErnieEmbeddings(LSGEmbeddingsMixin, dense.ErnieEmbeddings): ...


class LSGErnieEncoder(LSGEncoderMixin, dense.ErnieEncoder): ...


class LSGErnieModel(LSGModelMixin, dense.ErnieModel):
    config_class = LSGErnieConfig
    parts = {"ErnieEmbeddings": LSGErnieEmbeddings, "ErnieEncoder": LSGErnieEncoder}


class LSGErnieHead(LSGHeadMixin):
    config_class = LSGErnieConfig
    parts = {"ErnieModel": LSGErnieModel}


class LSGErnieForCausalLM(LSGErnieHead, dense.ErnieForCausalLM): ...


class LSGErnieForMaskedLM(LSGErnieHead, dense.ErnieForMaskedLM): ...


class LSGErnieForMultipleChoice(LSGErnieHead, dense.ErnieForMultipleChoice): ...


class LSGErnieForNextSentencePrediction(LSGErnieHead, dense.ErnieForNextSentencePrediction): ...


class LSGErnieForPreTraining(LSGErnieHead, dense.ErnieForPreTraining): ...


class LSGErnieForQuestionAnswering(LSGErnieHead, dense.ErnieForQuestionAnswering): ...


class LSGErnieForSequenceClassification(LSGErnieHead, dense.ErnieForSequenceClassification): ...


class LSGErnieForTokenClassification(LSGErnieHead, dense.ErnieForTokenClassification): ...
