"""ModernBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import ModernBertConfig
from transformers.models.modernbert import modeling_modernbert as dense
from transformers.models.modernbert.modeling_modernbert import ALL_ATTENTION_FUNCTIONS  # 5.0 has its own products

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
from .lsg_rotary import InitializedMixin, LSGRotaryConfigMixin, LSGRotaryEmbeddingsMixin, LSGRotaryModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGModernBertConfig(LSGRotaryConfigMixin, ModernBertConfig):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGModernBertEmbeddings(LSGRotaryEmbeddingsMixin, dense.ModernBertEmbeddings):
    word_embeddings = property(lambda self: self.tok_embeddings)
    LayerNorm = property(lambda self: self.norm)
    dropout = property(lambda self: self.drop)


class LSGModernBertModel(InitializedMixin, LSGRotaryModelMixin, dense.ModernBertModel):
    config_class = LSGModernBertConfig
    parts = {"ModernBertEmbeddings": LSGModernBertEmbeddings}


class LSGModernBertHead(InitializedMixin, LSGHeadMixin):
    config_class = LSGModernBertConfig
    parts = {"ModernBertModel": LSGModernBertModel}


class LSGModernBertForMaskedLM(LSGModernBertHead, dense.ModernBertForMaskedLM): ...


class LSGModernBertForMultipleChoice(LSGModernBertHead, dense.ModernBertForMultipleChoice): ...


class LSGModernBertForQuestionAnswering(LSGModernBertHead, dense.ModernBertForQuestionAnswering): ...


class LSGModernBertForSequenceClassification(LSGModernBertHead, dense.ModernBertForSequenceClassification): ...


class LSGModernBertForTokenClassification(LSGModernBertHead, dense.ModernBertForTokenClassification): ...
