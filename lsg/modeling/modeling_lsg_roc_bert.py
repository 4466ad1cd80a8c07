"""RoCBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import RoCBertConfig
from transformers.models.roc_bert import modeling_roc_bert as dense

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
from .lsg_pattern import LSGPattern, check
from .lsg_pinned import PinnedMask
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGRoCBertConfig(LSGConfigMixin, RoCBertConfig):
    __init__ = LSGConfigMixin.__init__

    def check_lsg(self) -> None:
        """Raise ValueError if a field is wrong."""
        super().check_lsg()
        rule = "it must be true: global tokens have no shapes and sounds, which are added behind LayerNorm otherwise"
        check(self.concat_input, "concat_input", self.concat_input, rule)


class LSGRoCBertEmbeddings(LSGEmbeddingsMixin, dense.RoCBertEmbeddings): ...


class LSGRoCBertEncoder(LSGEncoderMixin, dense.RoCBertEncoder): ...


class LSGRoCBertModel(LSGModelMixin, dense.RoCBertModel):
    config_class = LSGRoCBertConfig
    parts = {"RoCBertEmbeddings": LSGRoCBertEmbeddings, "RoCBertEncoder": LSGRoCBertEncoder}


class LSGRoCBertHead(LSGHeadMixin):
    config_class = LSGRoCBertConfig
    parts = {"RoCBertModel": LSGRoCBertModel}


class LSGRoCBertForCausalLM(LSGRoCBertHead, dense.RoCBertForCausalLM): ...


class LSGRoCBertForMaskedLM(LSGRoCBertHead, dense.RoCBertForMaskedLM): ...


class LSGRoCBertForMultipleChoice(LSGRoCBertHead, dense.RoCBertForMultipleChoice): ...


class LSGRoCBertForPreTraining(LSGRoCBertHead, dense.RoCBertForPreTraining): ...


class LSGRoCBertForQuestionAnswering(LSGRoCBertHead, dense.RoCBertForQuestionAnswering): ...


class LSGRoCBertForSequenceClassification(LSGRoCBertHead, dense.RoCBertForSequenceClassification): ...


class LSGRoCBertForTokenClassification(LSGRoCBertHead, dense.RoCBertForTokenClassification): ...
