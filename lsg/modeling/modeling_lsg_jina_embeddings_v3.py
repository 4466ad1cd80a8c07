"""Jina embeddings v3 with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import JinaEmbeddingsV3Config
from transformers.models.jina_embeddings_v3 import modeling_jina_embeddings_v3 as dense

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


class LSGJinaEmbeddingsV3Config(LSGRotaryConfigMixin, JinaEmbeddingsV3Config):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGJinaEmbeddingsV3Embeddings(LSGRotaryEmbeddingsMixin, dense.JinaEmbeddingsV3Embeddings): ...


class LSGJinaEmbeddingsV3Model(LSGRotaryModelMixin, dense.JinaEmbeddingsV3Model):
    config_class = LSGJinaEmbeddingsV3Config
    parts = {"JinaEmbeddingsV3Embeddings": LSGJinaEmbeddingsV3Embeddings}


class LSGJinaEmbeddingsV3Head(LSGHeadMixin):
    config_class = LSGJinaEmbeddingsV3Config
    parts = {"JinaEmbeddingsV3Model": LSGJinaEmbeddingsV3Model}


class LSGJinaEmbeddingsV3ForMaskedLM(LSGJinaEmbeddingsV3Head, dense.JinaEmbeddingsV3ForMaskedLM): ...


class LSGJinaEmbeddingsV3ForQuestionAnswering(LSGJinaEmbeddingsV3Head, dense.JinaEmbeddingsV3ForQuestionAnswering): ...


class LSGJinaEmbeddingsV3ForSequenceClassification(
    LSGJinaEmbeddingsV3Head, dense.JinaEmbeddingsV3ForSequenceClassification
): ...


class LSGJinaEmbeddingsV3ForTokenClassification(
    LSGJinaEmbeddingsV3Head, dense.JinaEmbeddingsV3ForTokenClassification
): ...
