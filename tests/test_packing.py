"""Packed rows against the same rows unpacked (as `output_hidden_states` asks for), for all masks and options."""

import random

import pytest
import torch
from draws import draw_key_mask
from helpers import SEQ2SEQ, TYPES, load_tokenizer, make_inputs
from test_models import convert_tiny

from lsg import SPARSITY_TYPES
from lsg.model_types import MODEL_TYPES

SWITCHES = ("mask_first_token", "pool_with_global")


def draw_mask(rng: random.Random, n: int, t: int, block_size: int) -> torch.Tensor:
    """A mask of `draw_key_mask`, or one in which token 0 is the only one of its block."""
    key_mask = draw_key_mask(rng, n, t)
    if key_mask is None or rng.random() < 0.3:
        key_mask = torch.ones(n, t, dtype=torch.bool) if key_mask is None else key_mask
        key_mask[-1, 0] = True
        key_mask[-1, 1 : block_size + rng.randrange(5)] = False
    return key_mask


@pytest.mark.parametrize("model_type", TYPES)
def test_packed_rows_answer_like_unpacked_ones(model_type: str) -> None:
    """Options are set on the loaded model's config, and hold for an encoder of an encoder-decoder, too."""
    _, ours = convert_tiny(model_type, MODEL_TYPES[model_type].default_architecture)
    encoder = ours.get_encoder() if model_type in SEQ2SEQ else ours.base_model
    for seed in range(40):
        rng = random.Random(seed)
        config = ours.config
        config.block_size = rng.choice([2, 4, 8])
        config.sparse_block_size = rng.choice([0, config.block_size])
        config.sparsity_type = rng.choice(SPARSITY_TYPES)
        for name in (*SWITCHES, *(["pass_global_tokens_to_decoder"] if model_type in SEQ2SEQ else [])):
            setattr(config, name, rng.random() < 0.5)
        t = rng.randrange(1, 60)
        inputs = make_inputs(load_tokenizer(model_type), config.vocab_size, [t] * 3, seed=seed)
        key_mask = inputs["attention_mask"] = draw_mask(rng, 3, t, config.block_size).long()
        with torch.no_grad():
            packed = encoder(**inputs).last_hidden_state
            unpacked = encoder(**inputs, output_hidden_states=True).last_hidden_state
        num_globals = packed.shape[1] - t
        real = torch.nn.functional.pad(key_mask, (num_globals, 0), value=1).bool()
        if config.pool_with_global and num_globals == 0:
            real[:, 0] = True
        assert (packed - unpacked).abs()[real].max().item() < 1e-5, f"seed {seed}: {config.lsg_pattern()}"
