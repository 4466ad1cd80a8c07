"""Families whose embeddings read more of a token than its id, its position and its type."""

import json
from pathlib import Path

import pytest
import torch
from helpers import EXACT, RANDOM, initial
from transformers import RoCBertConfig, RoCBertForMaskedLM
from transformers.models.roc_bert.tokenization_roc_bert import RoCBertTokenizer

from lsg import ConversionError, LSGConverter
from lsg.embedding_tables import find_tables


@pytest.fixture
def rocbert(tmp_path: Path) -> tuple[RoCBertForMaskedLM, RoCBertTokenizer]:
    """A tiny RoCBERT with a tokenizer of its own, which says how each token looks and sounds."""
    words = (initial("bert") / "vocab.txt").read_text(encoding="utf-8").split()
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tables = {"word_shape.json": words[::-1], "word_pronunciation.json": words[5:] + words[:5]}
    for name, order in tables.items():
        (tmp_path / name).write_text(json.dumps({word: place for place, word in enumerate(order)}), encoding="utf-8")
    tokenizer = RoCBertTokenizer(*(str(tmp_path / name) for name in ("vocab.txt", *tables)))
    torch.manual_seed(0)
    return RoCBertForMaskedLM(RoCBertConfig(vocab_size=len(words), **RANDOM["roc_bert"][1])).eval(), tokenizer


@pytest.mark.parametrize("use_token_ids", [True, False])
def test_global_0_looks_and_sounds_like_cls(rocbert, use_token_ids: bool) -> None:
    """So short texts are read exactly as by the original, with what its tokenizer says of them."""
    dense, tokenizer = rocbert
    ours, _ = LSGConverter(1100, use_token_ids=use_token_ids).convert(dense, tokenizer, block_size=16, **EXACT)
    inputs = tokenizer(["a short text", "another one"], padding=True, return_tensors="pt")
    assert inputs["input_shape_ids"][0, 0] > 0 < inputs["input_pronunciation_ids"][0, 0]
    with torch.no_grad():
        difference = (dense(**inputs).logits - ours(**inputs).logits).abs()[inputs["attention_mask"].bool()].max()
    assert (difference < 1e-5) == use_token_ids


def test_other_globals_are_masks_at_their_positions(rocbert) -> None:
    """Read off the original, with the token at that position; and draws are mapped as words are."""
    dense, tokenizer = rocbert
    ours, _ = LSGConverter(1100, global_positional_stride=64).convert(dense, tokenizer)
    found = find_tables(ours).globals_.weight
    ids = torch.full((1, 512), tokenizer.mask_token_id)
    unk = {
        name: torch.full_like(ids, tokenizer("a")[name][0]) for name in ("input_shape_ids", "input_pronunciation_ids")
    }
    sums = []
    dense.roc_bert.embeddings.LayerNorm.register_forward_pre_hook(lambda layer, inputs: sums.append(inputs[0][0]))
    with torch.no_grad():
        dense.roc_bert.embeddings(ids, **unk)
    for index, position in ((1, 64), (7, 448), (8, 1), (9, 65)):
        assert (found[index] - sums[0][position]).abs().max() < 1e-6
    drawn, _ = LSGConverter(1100, random_global_init=True).convert(dense, tokenizer)
    assert (find_tables(drawn).globals_.weight[1:] - found[1:]).abs().max(1).values.min() > 1e-4


def test_shapes_behind_the_norm_are_refused(rocbert) -> None:
    dense, tokenizer = rocbert
    with pytest.raises(ConversionError, match="concat_input=False is not allowed: it must be true"):
        LSGConverter(1100).convert(dense, tokenizer, concat_input=False)
