"""M2M100 and NLLB with LSG attention in its encoder. Everything else is transformers' own."""

from typing import Any

from torch import Tensor
from transformers import M2M100Config
from transformers.models.m2m_100 import modeling_m2m_100 as dense

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
from .lsg_seq2seq import LSGSeq2SeqConfigMixin, LSGSeq2SeqEncoderMixin, LSGSeq2SeqModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGM2M100Config(LSGSeq2SeqConfigMixin, M2M100Config):
    __init__ = LSGConfigMixin.__init__


class LSGM2M100Positions(dense.M2M100SinusoidalPositionalEmbedding):
    @property
    def num_embeddings(self) -> int:
        """How many rows the table has."""
        return len(self.weights)

    def forward(self, *args: Any, is_ours: bool = False, **kwargs: Any) -> Tensor:
        """Return positions to our encoder, which adds them itself, and zero to the Hugging Face encoder behind it."""
        return super().forward(*args, **kwargs) if is_ours else self.weights.new_zeros(())


class LSGM2M100Encoder(LSGSeq2SeqEncoderMixin, dense.M2M100Encoder):
    config_class = LSGM2M100Config
    parts = {"M2M100SinusoidalPositionalEmbedding": LSGM2M100Positions}

    def find_positions(self, input_ids: Tensor | None, tokens: Tensor) -> Tensor:
        """Return the positions (n, t, D) of tokens; padding takes none, as in fairseq."""
        return self.embed_positions(input_ids, tokens, is_ours=True)


class LSGM2M100Model(LSGSeq2SeqModelMixin, dense.M2M100Model):
    config_class = LSGM2M100Config
    parts = {"M2M100Encoder": LSGM2M100Encoder}


class LSGM2M100Head(LSGPreTrainedMixin):
    config_class = LSGM2M100Config
    parts = {"M2M100Model": LSGM2M100Model}


class LSGM2M100ForConditionalGeneration(LSGM2M100Head, dense.M2M100ForConditionalGeneration): ...
