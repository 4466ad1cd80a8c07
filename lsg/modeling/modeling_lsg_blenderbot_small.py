"""Blenderbot-small with LSG attention in its encoder. Everything else is transformers' own."""

from torch import Tensor
from transformers import BlenderbotSmallConfig
from transformers.models.blenderbot_small import modeling_blenderbot_small as dense

# every file of the remote code: out of a local folder, transformers 5.0 to 5.9 copy only those that are named here
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_config import LSGConfigMixin
from .lsg_distance import Scoring
from .lsg_encoder import LSGPreTrainedMixin
from .lsg_flex import attend_flex
from .lsg_flex_mask import make_mask
from .lsg_globals import cut_globals
from .lsg_inheritance import with_classes
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_pinned import PinnedMask
from .lsg_seq2seq import LSGPositionsMixin, LSGSeq2SeqConfigMixin, LSGSeq2SeqEncoderMixin, LSGSeq2SeqModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGBlenderbotSmallConfig(LSGSeq2SeqConfigMixin, BlenderbotSmallConfig):
    __init__ = LSGConfigMixin.__init__


class LSGBlenderbotSmallPositions(LSGPositionsMixin, dense.BlenderbotSmallLearnedPositionalEmbedding): ...


class LSGBlenderbotSmallEncoder(LSGSeq2SeqEncoderMixin, dense.BlenderbotSmallEncoder):
    config_class = LSGBlenderbotSmallConfig
    parts = {"BlenderbotSmallLearnedPositionalEmbedding": LSGBlenderbotSmallPositions}

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings of (n, t) tokens, scaled; the Hugging Face encoder scales those that it looks up."""
        return self.embed_tokens(input_ids) * self.embed_scale


class LSGBlenderbotSmallModel(LSGSeq2SeqModelMixin, dense.BlenderbotSmallModel):
    config_class = LSGBlenderbotSmallConfig
    parts = {"BlenderbotSmallEncoder": LSGBlenderbotSmallEncoder}


class LSGBlenderbotSmallHead(LSGPreTrainedMixin):
    config_class = LSGBlenderbotSmallConfig
    parts = {"BlenderbotSmallModel": LSGBlenderbotSmallModel}


class LSGBlenderbotSmallForCausalLM(LSGPreTrainedMixin, dense.BlenderbotSmallForCausalLM):
    config_class = LSGBlenderbotSmallConfig


class LSGBlenderbotSmallForConditionalGeneration(
    LSGBlenderbotSmallHead, dense.BlenderbotSmallForConditionalGeneration
): ...
