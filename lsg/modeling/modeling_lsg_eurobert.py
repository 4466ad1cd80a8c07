"""EuroBERT with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import EuroBertConfig
from transformers.models.eurobert import modeling_eurobert as dense

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
from .lsg_pattern import MAX_GLOBAL_TOKENS
from .lsg_pinned import PinnedMask
from .lsg_rotary import LSGRotaryConfigMixin, LSGRotaryEmbeddingsMixin, LSGRotaryModelMixin
from .lsg_sparse import select_sparse
from .lsg_tiled import attend_tiled
from .lsg_tiles import Products


class LSGEuroBertConfig(LSGRotaryConfigMixin, EuroBertConfig):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGEuroBertModel(LSGRotaryModelMixin, dense.EuroBertModel):
    """It embeds words itself, and nothing else; so it has the globals, too, and stands for its embeddings."""

    config_class = LSGEuroBertConfig
    embeds_again, position_offset = False, 0
    embeddings = property(lambda self: self)
    word_embeddings = property(lambda self: self.embed_tokens)
    check_length = LSGRotaryEmbeddingsMixin.check_length

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.global_embeddings = nn.Embedding(MAX_GLOBAL_TOKENS, config.hidden_size)
        self.post_init()  # again, for the globals

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, mask: Tensor | None, kwargs: Any) -> Tensor:
        """Return globals and tokens, (n, g + t, D)."""
        tokens = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        globals_ = self.global_embeddings(torch.arange(self.config.num_global_tokens, device=tokens.device))
        return torch.cat([globals_.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], 1)


class LSGEuroBertHead(LSGHeadMixin):
    config_class = LSGEuroBertConfig
    parts = {"EuroBertModel": LSGEuroBertModel}


class LSGEuroBertForMaskedLM(LSGEuroBertHead, dense.EuroBertForMaskedLM): ...


class LSGEuroBertForSequenceClassification(LSGEuroBertHead, dense.EuroBertForSequenceClassification): ...


class LSGEuroBertForTokenClassification(LSGEuroBertHead, dense.EuroBertForTokenClassification): ...
