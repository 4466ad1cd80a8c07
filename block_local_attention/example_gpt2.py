"""Use block-local attention in an existing model: a GPT-2 that attends to two blocks and the first token.

Run `python -m block_local_attention.example_gpt2`. The model is small and random, and so is its text; for a trained
model, pass its name: `--model gpt2`.
"""

import argparse
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, GPT2Config, GPT2LMHeadModel

from block_local_attention import block_local_attention
from lsg.modeling.lsg_pattern import LSGPattern

# causal: a token attends to the block before its own, to its own up to itself, and to token 0
PATTERN = LSGPattern(block_size=32, sparsity_type="none", is_causal=True, num_global_tokens=1)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Return the attention for transformers' AttentionInterface: from (n, h, t, d) to (n, t, h, d)."""
    output = block_local_attention(query, key, value, attention_mask, PATTERN, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None


def mask(attention_mask: Tensor | None = None, **kwargs: object) -> Tensor | None:
    """Return only the padding mask, (n, 1, 1, keys), for transformers' AttentionMaskInterface."""
    return None if attention_mask is None else attention_mask[:, None, None].bool()


AttentionInterface.register("block_local", attention)
AttentionMaskInterface.register("block_local", mask)


def make_model(name: str | None) -> GPT2LMHeadModel:
    """Return a GPT-2 with block-local attention, loaded by name, or a small random one."""
    if name is not None:
        return GPT2LMHeadModel.from_pretrained(name, attn_implementation="block_local").eval()
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=256, vocab_size=128, bos_token_id=0, eos_token_id=0)
    config._attn_implementation = "block_local"
    return GPT2LMHeadModel(config).eval()


def main(argv: list[str] | None = None) -> int:
    """Generate from a prompt of 100 tokens; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub name of a GPT-2 (default: a small random one)")
    parser.add_argument("--new_tokens", type=int, default=20, help="tokens to generate (20)")
    args = parser.parse_args(argv)
    model: Any = make_model(args.model)  # transformers' annotation of `generate` fits no model
    prompt = torch.randint(1, model.config.vocab_size, (1, 100), generator=torch.Generator().manual_seed(0))
    result = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=args.new_tokens, do_sample=False, pad_token_id=0
    )
    sys.stdout.write(f"{result[0, 100:].tolist()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
