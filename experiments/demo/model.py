"""The demo's model before training: sizes, tokenizer and initial weights."""

import json
from typing import Any

import tokenizers
import torch
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BOS, PAD, EOS, UNK, MASK = range(5)
LENGTH = 512  # tokens that the model reads
MODEL: dict[str, Any] = {  # with these sizes the checkpoint stays under 3,000,000 bytes
    "vocab_size": 3400,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": LENGTH + 2,  # RoBERTa counts positions from pad_token_id + 1
    "type_vocab_size": 1,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "hidden_dropout_prob": 0.0,  # a small model and few passes over the text
    "attention_probs_dropout_prob": 0.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}


def train_tokenizer(texts: list[str]) -> RobertaTokenizer:
    """Train a byte-level BPE vocabulary; return it as a RoBERTa tokenizer."""
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(texts, vocab_size=MODEL["vocab_size"], min_frequency=2, special_tokens=SPECIALS)
    state = json.loads(bpe.to_str())["model"]
    options: dict[str, Any] = {
        "merges": [tuple(pair) for pair in state["merges"]],
        "mask_token": tokenizers.AddedToken("<mask>", lstrip=True, normalized=False, special=True),
    }
    tokenizer = RobertaTokenizer(vocab=state["vocab"], model_max_length=LENGTH, **options)
    if tokenizer.convert_tokens_to_ids(SPECIALS) != list(range(5)):
        raise RuntimeError("the special tokens did not get the ids 0 to 4")
    return tokenizer


def cooccurrence_vectors(stream: torch.Tensor, size: int) -> torch.Tensor:
    """Return word vectors (V, size): the factorized pointwise mutual information of tokens at most three apart."""
    vocab = MODEL["vocab_size"]
    counts = torch.zeros(vocab * vocab)
    for distance in (1, 2, 3):
        counts += torch.bincount(stream[:-distance] * vocab + stream[distance:], minlength=vocab * vocab)
    counts = counts.view(vocab, vocab) + counts.view(vocab, vocab).T
    totals = counts.sum(1, keepdim=True) + 1
    information = (counts * totals.sum() / (totals * totals.T)).clamp(min=1).log()
    left, values, _ = torch.svd_lowrank(information, size, niter=3)
    rotation = torch.linalg.qr(torch.randn(size, size))[0]  # spreads the few strong directions over all of them
    vectors = (left * values.sqrt()) @ rotation
    return vectors / vectors.square().mean().sqrt()


@torch.no_grad()
def new_model(stream: torch.Tensor) -> RobertaForMaskedLM:
    """Return the untrained model, initialized so that it uses the neighbours of a <mask> from the first steps on.

    From the usual random weights, a model this small learns only the token frequencies for much of a short
    training. So the embeddings start as co-occurrence vectors, the output bias as the log frequencies,
    the positions as sinusoids, and the attention as an average over the tokens nearby. All of it is trained.
    """
    model, scale = RobertaForMaskedLM(RobertaConfig(**MODEL)), MODEL["initializer_range"]
    counts = torch.bincount(stream, minlength=MODEL["vocab_size"]) + 1.0
    model.lm_head.bias.copy_((counts / counts.sum()).log())
    embeddings: Any = model.roberta.embeddings
    layers: Any = model.roberta.encoder.layer
    words = embeddings.word_embeddings.weight
    words.copy_(scale * cooccurrence_vectors(stream, words.shape[1]))
    words[[PAD, MASK]] = 0
    positions = embeddings.position_embeddings.weight
    angles = torch.arange(len(positions))[:, None] * torch.logspace(0.2, -1.7, words.shape[1] // 2)
    positions.copy_(scale * 2**0.5 * torch.cat([angles.sin(), angles.cos()], dim=1))
    positions[PAD] = 0
    for layer in layers:
        attention = layer.attention.self
        attention.query.weight.mul_(2.1)
        attention.key.weight.copy_(attention.query.weight)
        torch.nn.init.orthogonal_(attention.value.weight)
        layer.attention.output.dense.weight.copy_(attention.value.weight.T)
    return model
