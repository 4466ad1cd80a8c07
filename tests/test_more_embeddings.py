"""Families whose embeddings read more of a token than its id, its position and its type."""

import json
from pathlib import Path

import pytest
import torch
from helpers import EXACT, RANDOM, architecture_of, initial, load_tokenizer, make_inputs
from test_models import convert_tiny
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


def page_inputs(model_type: str, config, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Where tokens (n, t) stand on a page, at random; the first and the padding stand nowhere."""
    generator = torch.Generator().manual_seed(1)
    tokenizer = load_tokenizer(model_type)
    nowhere = (ids == tokenizer.cls_token_id) | (ids == tokenizer.pad_token_id)
    if model_type == "layoutlm":
        corners = torch.randint(64, (*ids.shape, 2), generator=generator)
        boxes = torch.cat([corners, corners + torch.randint(64, corners.shape, generator=generator)], -1)
        return {"bbox": boxes.masked_fill(nowhere[..., None], 0)}
    tags, places = torch.randint(50, (2, *ids.shape, config.max_depth), generator=generator)
    return {
        "xpath_tags_seq": tags.masked_fill(nowhere[..., None], config.tag_pad_id),
        "xpath_subs_seq": places.masked_fill(nowhere[..., None], config.subs_pad_id),
    }


@pytest.mark.parametrize("model_type", ["layoutlm", "markuplm"])
def test_tokens_with_a_place_on_the_page_are_read_as_by_the_original(model_type: str) -> None:
    dense, ours = convert_tiny(model_type, architecture_of(model_type, "AutoModelForTokenClassification"), **EXACT)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [32, 20, 7])
    places = page_inputs(model_type, ours.config, inputs["input_ids"])
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = dense(**inputs, **places).logits[real]
        assert (ours(**inputs, **places).logits[real] - expected).abs().max() < 1e-5
        assert (ours(**inputs).logits[real] - expected).abs().max() > 1e-2


@pytest.mark.parametrize("model_type", ["layoutlm", "markuplm"])
@pytest.mark.parametrize("fields", [{}, {"output_hidden_states": True}])
def test_pinned_questions_about_pages(model_type: str, fields: dict) -> None:
    """Rows of a batch give what they give alone, packed or not: no token takes another's place on the page."""
    architecture = architecture_of(model_type, "AutoModelForQuestionAnswering")
    sizes = {"block_size": 8, "sparse_block_size": 8, "sparsity_factor": 2, "position_period": 512}
    pin = {
        "pin_first_segment": True,
        "max_pinned_tokens": 20,
        "separator_token_id": 3 if model_type == "layoutlm" else 2,
    }
    _, ours = convert_tiny(model_type, architecture, **pin, **sizes)
    inputs = make_inputs(load_tokenizer(model_type), ours.config.vocab_size, [90, 60, 33])
    inputs["input_ids"][:2, 9] = ours.config.separator_token_id  # the third row has no question
    inputs |= page_inputs(model_type, ours.config, inputs["input_ids"])
    with torch.no_grad():
        together = ours(**inputs, **fields).start_logits
        assert (together - ours(**{**inputs, "pinned_mask": inputs["attention_mask"] * 0}).start_logits).abs()[
            0
        ].max() > 1e-4
        for row, length in enumerate([90, 60, 33]):
            alone = ours(**{name: x[row : row + 1, :length] for name, x in inputs.items()}).start_logits[0]
            assert (together[row, :length] - alone).abs().max() < 1e-5


def test_rows_of_several_languages_are_packed() -> None:
    """Each with its own adapters, X-MOD's."""
    _, ours = convert_tiny("xmod", "XmodModel")
    inputs = make_inputs(load_tokenizer("xmod"), ours.config.vocab_size, [90, 40, 17])
    languages = torch.tensor([1, 0, 1])
    with torch.no_grad():
        together = ours(**inputs, lang_ids=languages).last_hidden_state
        for row, length in enumerate([90, 40, 17]):
            one = {name: x[row : row + 1, :length] for name, x in inputs.items()}
            alone, other = (
                ours(**one, lang_ids=x[row : row + 1]).last_hidden_state for x in (languages, 1 - languages)
            )
            assert (together[row, :length] - alone).abs().max() < 1e-5 < (alone - other).abs().max()
        with pytest.raises(ValueError, match=r"lang_ids of shape \(batch,\) are expected, got \(3, 90\)"):
            ours(**inputs, lang_ids=languages[:, None].expand(3, 90))


def test_padding_takes_no_positions_in_m2m_100() -> None:
    _, ours = convert_tiny("m2m_100", "M2M100Model", sparsity_type="none", pass_global_tokens_to_decoder=False)
    alone = make_inputs(load_tokenizer("m2m_100"), ours.config.vocab_size, [64])
    values = {"input_ids": ours.config.pad_token_id, "attention_mask": 0}
    padded = {name: torch.nn.functional.pad(x, (16, 0), value=values[name]) for name, x in alone.items()}
    with torch.no_grad():
        a, b = (ours.encoder(**inputs).last_hidden_state for inputs in (alone, padded))
    assert (a[:, 1:] - b[:, 17:]).abs().max() < 1e-5
