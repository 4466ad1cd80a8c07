"""X-MOD with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import Any

from torch import Tensor
from transformers import XmodConfig
from transformers.models.xmod import modeling_xmod as dense

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


class LSGXmodConfig(LSGConfigMixin, XmodConfig):
    __init__ = LSGConfigMixin.__init__


class LSGXmodEmbeddings(LSGEmbeddingsMixin, dense.XmodEmbeddings): ...


class Languages:
    """Behind LSGEncoderMixin: a packed row has tokens of several languages."""

    def forward(self, hidden_states: Tensor, lang_ids: Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        """Run the encoder; lang_ids is (n,), in which a language's number says which adapters a row takes."""
        if lang_ids.dim() != 1:
            raise ValueError(f"lang_ids of shape (batch,) are expected, got {tuple(lang_ids.shape)}")
        if isinstance(attention_mask, Packing):
            lang_ids = attention_mask.pack(attention_mask.spread(lang_ids[:, None, None]))[..., 0]  # (1, N)
        return super().forward(hidden_states, lang_ids, attention_mask, **kwargs)


class LSGXmodEncoder(LSGEncoderMixin, Languages, dense.XmodEncoder): ...


class LSGXmodModel(LSGModelMixin, dense.XmodModel):
    config_class = LSGXmodConfig
    parts = {"XmodEmbeddings": LSGXmodEmbeddings, "XmodEncoder": LSGXmodEncoder}


class LSGXmodHead(LSGHeadMixin):
    config_class = LSGXmodConfig
    parts = {"XmodModel": LSGXmodModel}


class LSGXmodForCausalLM(PositionsAfterPaddingMixin, LSGXmodHead, dense.XmodForCausalLM): ...


class LSGXmodForMaskedLM(LSGXmodHead, dense.XmodForMaskedLM): ...


class LSGXmodForMultipleChoice(LSGXmodHead, dense.XmodForMultipleChoice): ...


class LSGXmodForQuestionAnswering(LSGXmodHead, dense.XmodForQuestionAnswering): ...


class LSGXmodForSequenceClassification(LSGXmodHead, dense.XmodForSequenceClassification): ...


class LSGXmodForTokenClassification(LSGXmodHead, dense.XmodForTokenClassification): ...
