"""ESM with LSG attention: the config, the model and its heads. Everything else is transformers' own."""

from typing import Any

import torch
from torch import Tensor
from transformers import EsmConfig
from transformers.models.esm import modeling_esm as dense
from transformers.models.esm.modeling_esm import EsmRotaryEmbedding  # up to 5.5 each layer has positions of its own

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


class LSGEsmConfig(LSGRotaryConfigMixin, EsmConfig):
    __init__ = LSGRotaryConfigMixin.__init__


class LSGEsmEmbeddings(LSGRotaryEmbeddingsMixin, dense.EsmEmbeddings):
    def forward(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return globals and tokens, (n, g + t, D); with `token_dropout`, both are scaled by the share of masks."""
        device = (inputs_embeds if input_ids is None else input_ids).device
        globals_ = self.global_embeddings(torch.arange(self.config.num_global_tokens, device=device)[None])  # (1, g, D)
        if input_ids is None:  # the model embeds no more
            globals_ = globals_.to(inputs_embeds.dtype).expand(inputs_embeds.shape[0], -1, -1)
            return torch.cat([globals_, inputs_embeds], 1)
        # with the mask, padding would be zero, and LayerNorm's gradient of that is NaN in half precision
        tokens = dense.EsmEmbeddings.forward(self, input_ids=input_ids)
        if self.layer_norm is not None:  # it undoes any scaling
            globals_ = self.layer_norm(globals_)
        elif self.token_dropout:
            masked, t = (input_ids == self.mask_token_id).sum(1), input_ids.shape[1]
            kept = 1 - masked / (t if mask is None else mask.sum(1).clamp(min=1))  # (n,), share of words
            tokens = tokens * ((1 - masked / t) / kept)[:, None, None].to(tokens.dtype)  # t counts padding
            globals_ = globals_ * ((1 - 0.15 * 0.8) / kept)[:, None, None].to(globals_.dtype)
        return torch.cat([globals_.expand(tokens.shape[0], -1, -1), tokens], 1)


class LSGEsmModel(LSGRotaryModelMixin, dense.EsmModel):
    config_class = LSGEsmConfig
    parts = {"EsmEmbeddings": LSGEsmEmbeddings}
    embeds_again = False

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, mask: Tensor | None, kwargs: Any) -> Tensor:
        """Return globals and tokens, (n, g + t, D)."""
        return self.embeddings(input_ids, inputs_embeds, mask)


class LSGEsmHead(LSGHeadMixin):
    config_class = LSGEsmConfig
    parts = {"EsmModel": LSGEsmModel}


class LSGEsmForMaskedLM(LSGEsmHead, dense.EsmForMaskedLM): ...


class LSGEsmForSequenceClassification(LSGEsmHead, dense.EsmForSequenceClassification): ...


class LSGEsmForTokenClassification(LSGEsmHead, dense.EsmForTokenClassification): ...
