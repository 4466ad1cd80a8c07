"""ELECTRA with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import ElectraConfig
from transformers.models.electra import modeling_electra as dense

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


class LSGElectraConfig(LSGConfigMixin, ElectraConfig):
    __init__ = LSGConfigMixin.__init__


class LSGElectraEmbeddings(LSGEmbeddingsMixin, dense.ElectraEmbeddings): ...


class LSGElectraEncoder(LSGEncoderMixin, dense.ElectraEncoder): ...


class LSGElectraModel(LSGModelMixin, dense.ElectraModel):
    config_class = LSGElectraConfig
    parts = {"ElectraEmbeddings": LSGElectraEmbeddings, "ElectraEncoder": LSGElectraEncoder}


class LSGElectraHead(LSGHeadMixin):
    config_class = LSGElectraConfig
    parts = {"ElectraModel": LSGElectraModel}


class LSGElectraForCausalLM(LSGElectraHead, dense.ElectraForCausalLM): ...


class LSGElectraForMaskedLM(LSGElectraHead, dense.ElectraForMaskedLM): ...


class LSGElectraForMultipleChoice(LSGElectraHead, dense.ElectraForMultipleChoice): ...


class LSGElectraForPreTraining(LSGElectraHead, dense.ElectraForPreTraining): ...


class LSGElectraForQuestionAnswering(LSGElectraHead, dense.ElectraForQuestionAnswering): ...


class LSGElectraForSequenceClassification(LSGElectraHead, dense.ElectraForSequenceClassification): ...


class LSGElectraForTokenClassification(LSGElectraHead, dense.ElectraForTokenClassification): ...
