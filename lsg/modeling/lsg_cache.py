"""The cache as the layers of a model with global tokens see it.

Globals depend on weights only (arXiv 2210.15497, section 3), so they are computed at every call and never cached: the
caller's cache holds tokens and nothing else, and whatever transformers does with it counts right.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, EncoderDecoderCache


class TokenCache(Cache):
    """A cache for keys that begin with g globals: it keeps those of the tokens, and returns the globals in front.

    Args:
        cache: the caller's, which is filled.
        num_globals: g.
    """

    def __init__(self, cache: Cache, num_globals: int) -> None:  # the layers are those of the caller's cache
        self.cache, self.num_globals = cache, num_globals

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["cache"], name)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Cache keys and values (n, h, g + t, d) without the globals; return all, (n, h, g + cached + t, d)."""
        g = self.num_globals
        cached = self.cache.update(key_states[:, :, g:], value_states[:, :, g:], *args, **kwargs)
        key, value = (
            torch.cat([new[:, :, :g], x], 2) for new, x in zip((key_states, value_states), cached, strict=True)
        )
        return key, value


def without_globals(cache: Cache | None, num_globals: int) -> Cache | None:
    """Return a cache to hand to the layers, which fills the caller's with tokens only."""
    if cache is None:
        return None
    if not isinstance(cache, EncoderDecoderCache):
        return TokenCache(cache, num_globals)
    pair = EncoderDecoderCache(TokenCache(cache.self_attention_cache, num_globals), cache.cross_attention_cache)
    pair.is_updated = cache.is_updated  # the caller's own, in which the layers note what they did
    return pair
