"""Pegasus with LSG attention in its encoder. Everything else is transformers' own."""

from torch import Tensor
from transformers import PegasusConfig
from transformers.models.pegasus import modeling_pegasus as dense

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


class LSGPegasusConfig(LSGSeq2SeqConfigMixin, PegasusConfig):
    __init__ = LSGConfigMixin.__init__


class LSGPegasusPositions(LSGPositionsMixin, dense.PegasusSinusoidalPositionalEmbedding): ...


class LSGPegasusEncoder(LSGSeq2SeqEncoderMixin, dense.PegasusEncoder):
    config_class = LSGPegasusConfig
    parts = {"PegasusSinusoidalPositionalEmbedding": LSGPegasusPositions}

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings of (n, t) tokens, scaled; PegasusEncoder scales those that it looks up itself."""
        return self.embed_tokens(input_ids) * self.embed_scale

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Make the position table longer or shorter, as PegasusEncoder does, with our class."""
        with_classes(super().resize_position_embeddings, self.parts)(new_num_position_embeddings)


class LSGPegasusModel(LSGSeq2SeqModelMixin, dense.PegasusModel):
    config_class = LSGPegasusConfig
    parts = {"PegasusEncoder": LSGPegasusEncoder}


class LSGPegasusHead(LSGPreTrainedMixin):
    config_class = LSGPegasusConfig
    parts = {"PegasusModel": LSGPegasusModel}


class LSGPegasusForCausalLM(LSGPreTrainedMixin, dense.PegasusForCausalLM):
    config_class = LSGPegasusConfig


class LSGPegasusForConditionalGeneration(LSGPegasusHead, dense.PegasusForConditionalGeneration): ...
