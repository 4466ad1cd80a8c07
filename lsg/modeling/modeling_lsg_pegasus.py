"""Pegasus with LSG attention in its encoder. Everything else is transformers' own."""

from typing import ClassVar

from torch import Tensor
from transformers import (
    PegasusConfig,
    PegasusForCausalLM,
    PegasusForConditionalGeneration,
    PegasusModel,
)
from transformers.models.pegasus.modeling_pegasus import PegasusEncoder, PegasusSinusoidalPositionalEmbedding

# all files of the remote code: out of a local folder, some 5.x versions copy only those that this file names
from .lsg_attention import lsg_attention
from .lsg_blocks import attend_blocks
from .lsg_cache import TokenCache
from .lsg_config import LSGConfigMixin
from .lsg_encoder import LSGCheckedMixin
from .lsg_flex import attend_flex
from .lsg_outputs import cut_globals
from .lsg_packing import Packing
from .lsg_pattern import LSGPattern
from .lsg_seq2seq import (
    LSGPositionsMixin,
    LSGSeq2SeqConfigMixin,
    LSGSeq2SeqEncoderMixin,
    LSGSeq2SeqHeadMixin,
    LSGSeq2SeqModelMixin,
)
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGPegasusConfig(LSGSeq2SeqConfigMixin, PegasusConfig):
    """PegasusConfig with the LSG fields, see LSGSeq2SeqConfigMixin."""

    __init__ = LSGConfigMixin.__init__


class LSGPegasusPositions(LSGPositionsMixin, PegasusSinusoidalPositionalEmbedding):
    """PegasusSinusoidalPositionalEmbedding behind the global tokens."""


class LSGPegasusEncoder(LSGSeq2SeqEncoderMixin, PegasusEncoder):
    """PegasusEncoder with LSG attention."""

    config_class = LSGPegasusConfig
    positions_class = LSGPegasusPositions

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """Embed (n, t) tokens; PegasusEncoder scales them itself only where it embeds them."""
        return self.embed_tokens(input_ids) * self.embed_scale

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Make the table of positions longer or shorter, as in PegasusEncoder, which knows only its own class."""
        super().resize_position_embeddings(new_num_position_embeddings)
        computed = self.embed_positions.weight
        self.embed_positions = self.positions_class(*computed.shape)
        self.embed_positions.weight = computed


class LSGPegasusModel(LSGSeq2SeqModelMixin, PegasusModel):
    """PegasusModel with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModel"
    config_class = LSGPegasusConfig
    encoder_class = LSGPegasusEncoder


class LSGPegasusHead(LSGSeq2SeqHeadMixin):
    """What all heads over encoder and decoder share."""

    config_class = LSGPegasusConfig
    lsg_model_class = LSGPegasusModel


class LSGPegasusForCausalLM(LSGCheckedMixin, PegasusForCausalLM):
    """The decoder alone: PegasusForCausalLM with longer positions, and no LSG attention."""

    lsg_auto_class: ClassVar[str] = "AutoModelForCausalLM"
    config_class = LSGPegasusConfig


class LSGPegasusForConditionalGeneration(LSGPegasusHead, PegasusForConditionalGeneration):
    """PegasusForConditionalGeneration with LSG attention in its encoder."""

    lsg_auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
