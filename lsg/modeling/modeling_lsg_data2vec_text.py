"""data2vec-text with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from transformers import Data2VecTextConfig
from transformers.models.data2vec import modeling_data2vec_text as dense

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


class LSGData2VecTextConfig(LSGConfigMixin, Data2VecTextConfig):
    __init__ = LSGConfigMixin.__init__


class LSGData2VecTextEmbeddings(LSGEmbeddingsMixin, dense.Data2VecTextEmbeddings): ...


class LSGData2VecTextEncoder(LSGEncoderMixin, dense.Data2VecTextEncoder): ...


class LSGData2VecTextModel(LSGModelMixin, dense.Data2VecTextModel):
    config_class = LSGData2VecTextConfig
    parts = {"Data2VecTextEmbeddings": LSGData2VecTextEmbeddings, "Data2VecTextEncoder": LSGData2VecTextEncoder}


class LSGData2VecTextHead(LSGHeadMixin):
    config_class = LSGData2VecTextConfig
    parts = {"Data2VecTextModel": LSGData2VecTextModel}


class LSGData2VecTextForCausalLM(PositionsAfterPaddingMixin, LSGData2VecTextHead, dense.Data2VecTextForCausalLM): ...


class LSGData2VecTextForMaskedLM(LSGData2VecTextHead, dense.Data2VecTextForMaskedLM): ...


class LSGData2VecTextForMultipleChoice(LSGData2VecTextHead, dense.Data2VecTextForMultipleChoice): ...


class LSGData2VecTextForQuestionAnswering(LSGData2VecTextHead, dense.Data2VecTextForQuestionAnswering): ...


class LSGData2VecTextForSequenceClassification(LSGData2VecTextHead, dense.Data2VecTextForSequenceClassification): ...


class LSGData2VecTextForTokenClassification(LSGData2VecTextHead, dense.Data2VecTextForTokenClassification): ...
