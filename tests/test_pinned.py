"""Pinned tokens: the attention against the dense oracle, whole models against rows alone, and every rule."""

import inspect

import pytest
import torch
from draws import draw_case, with_gradients
from flex_reference import with_flex_reference
from fuzz import PATHS, forced
from helpers import EXACT, SEQ2SEQ, architecture_of, encoders_with, load_tokenizer
from oracle import oracle_attention
from test_models import convert_tiny

from lsg.export import ExportedEncoder, export_program, input_names
from lsg.model_types import MODEL_TYPES
from lsg.modeling import lsg_attention as attention
from lsg.modeling.lsg_attention import lsg_attention
from lsg.modeling.lsg_pattern import LSGPattern
from lsg.modeling.lsg_pinned import first_segments

READERS = encoders_with("AutoModelForQuestionAnswering")
PAIRS = [(7, 90), (0, 60), (25, 70), (3, 9), (5, 14)]  # tokens of the question and of the text, blocks of 8
PIN = {"pin_first_segment": True, "max_pinned_tokens": 20, "position_period": 512}
SIZES = {"block_size": 8, "sparse_block_size": 8, "sparsity_factor": 2}


@pytest.mark.parametrize("first", range(0, 500, 50))
@pytest.mark.parametrize("path", PATHS)
def test_the_attention_is_that_of_the_oracle(path: str, first: int) -> None:
    """Outputs and gradients, of all memory layouts, of rows with as many pinned tokens as places, fewer, or none."""
    for seed in range(first, first + 50):
        case = draw_case(seed, max_pinned=9)
        with with_flex_reference(), forced(path) as attend:
            pairs = zip(with_gradients(attend, *case), with_gradients(oracle_attention, *case), strict=True)
        for found, expected in pairs:
            assert (found - expected).abs().max().item() < 1e-9, (seed, case[4])


@pytest.mark.parametrize("backend", ["blocks", "tiled"])
def test_dropout_reaches_pinned_tokens_and_keeps_the_mean(backend: str) -> None:
    pattern = LSGPattern(4, 4, 2, "norm", 1, num_pinned_tokens=5)
    query, key, value = (torch.randn(1, 1, 30, 4, generator=torch.Generator().manual_seed(0)) for _ in range(3))
    plain = lsg_attention(query, key, value, None, pattern)
    torch.manual_seed(0)
    dropped = [lsg_attention(query, key, value, None, pattern, dropout=0.2, backend=backend) for _ in range(2000)]
    assert not torch.equal(dropped[0][:, :, 1:6], dropped[1][:, :, 1:6])
    assert (torch.stack(dropped).mean(0) - plain).abs().max() < 0.15


def question_answerer(model_type: str, dtype: torch.dtype = torch.float64, **fields):
    """A tiny model with pinning."""
    architecture = architecture_of(model_type, "AutoModelForQuestionAnswering")
    separator = load_tokenizer(model_type).sep_token_id
    fields = {**PIN, **SIZES, "separator_token_id": separator, **fields}
    return convert_tiny(model_type, architecture, **fields)[1].to(dtype)


def make_pair(model_type: str, config, question: int, text: int, separators: int = 1) -> torch.Tensor:
    """[CLS] question [SEP] text [SEP], (t,), without a question if that has no tokens."""
    tokenizer = load_tokenizer(model_type)
    generator = torch.Generator().manual_seed(question)
    words = torch.tensor(sorted(set(range(config.vocab_size)) - set(tokenizer.all_special_ids)))
    ids = words[torch.randint(len(words), (question + text,), generator=generator)]
    if model_type == "splinter":
        ids[0] = config.question_token_id
    separator = torch.full((separators if question else 0,), tokenizer.sep_token_id)
    first = torch.tensor([tokenizer.cls_token_id])
    return torch.cat([first, ids[:question], separator, ids[question:], torch.tensor([tokenizer.sep_token_id])])


def pad(rows: list[torch.Tensor], value: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows padded on a side, and their mask."""
    longest = max(map(len, rows))
    sides = [(longest - len(row), 0)[:: 1 if side == "left" else -1] for row in rows]
    ids = [torch.nn.functional.pad(row, place, value=value) for row, place in zip(rows, sides, strict=True)]
    masks = [torch.nn.functional.pad(torch.ones_like(row), place) for row, place in zip(rows, sides, strict=True)]
    return torch.stack(ids), torch.stack(masks)


@pytest.mark.parametrize("model_type", READERS)
@pytest.mark.parametrize("kind, mask_first_token", [("norm", True), ("bos_pooling", False)])
def test_a_batch_gives_what_its_rows_give_alone(model_type: str, kind: str, mask_first_token: bool) -> None:
    """Packed or not, padded on either side, also hidden states; and alone, what the oracle gives."""
    model = question_answerer(model_type, sparsity_type=kind, mask_first_token=mask_first_token)
    rows = [make_pair(model_type, model.config, *pair) for pair in PAIRS]
    with torch.no_grad():
        alone = [model(row[None], output_hidden_states=True) for row in rows]
        for side in ("left", "right"):
            ids, mask = pad(rows, model.config.pad_token_id, side)
            for fields in ({}, {"output_hidden_states": True}):  # the second time nothing is packed
                outputs = model(ids, attention_mask=mask.double(), **fields)  # Splinter adds it to its logits
                for place, one in enumerate(alone):
                    names = ["start_logits", "end_logits"]
                    pairs = [(outputs[name], one[name]) for name in names]
                    pairs += zip(outputs.hidden_states or [], one.hidden_states, strict=False)
                    for found, expected in pairs:
                        difference = (found[place][mask[place].bool()] - expected[0]).abs().max().item()
                        assert difference < 1e-12, (side, fields, place)


@pytest.mark.parametrize("model_type", READERS)
def test_a_row_alone_is_that_of_the_oracle(model_type: str, monkeypatch) -> None:
    """Its question first, then its text: the order of its tokens as they are."""
    model = question_answerer(model_type)
    row = make_pair(model_type, model.config, *PAIRS[0])[None]
    calls = []

    def oracle(query, key, value, key_mask, pattern, scoring):
        calls.append(pattern.num_pinned_tokens)
        return oracle_attention(query, key, value, key_mask, pattern, scoring.scaling, scoring.distance_bias)

    with torch.no_grad():
        found = model(row)
        monkeypatch.setitem(attention.BACKENDS, "tiled", oracle)
        expected = model(row)
    assert set(calls) == {9}  # [CLS], seven words, [SEP]
    assert (found.start_logits - expected.start_logits).abs().max().item() < 1e-12


@pytest.mark.parametrize("model_type", READERS)
def test_without_a_pair_nothing_changes(model_type: str) -> None:
    """To the bit; and short pairs are read as by the original, exactly."""
    model = question_answerer(model_type, torch.float32)
    off = question_answerer(model_type, torch.float32, pin_first_segment=False)
    ids, mask = pad([make_pair(model_type, model.config, *pair) for pair in ((0, 60), (0, 31), (3, 9))], 0, "right")
    pairs, _ = pad([make_pair(model_type, model.config, *PAIRS[0])], 0, "right")
    with torch.no_grad():
        on, without = model(ids, attention_mask=mask), off(ids, attention_mask=mask)
        assert torch.equal(on.start_logits, without.start_logits)
        assert (model(pairs).start_logits - off(pairs).start_logits).abs().max() > 1e-5


def test_a_short_pair_is_that_of_the_original() -> None:
    fields = {**PIN, **SIZES, **EXACT, "separator_token_id": load_tokenizer("bert").sep_token_id}
    dense, ours = convert_tiny("bert", "BertForQuestionAnswering", **fields)
    row = make_pair("bert", ours.config, 5, 8)[None]
    with torch.no_grad():
        assert (dense(row).start_logits - ours(row).start_logits).abs().max().item() < 1e-5


def test_positions_are_counted_over_kept_tokens_and_repeat_behind_the_question() -> None:
    model = question_answerer("roberta", position_period=64, **{**SIZES, "sparse_block_size": 0}).base_model
    seen = []
    model.embeddings.position_embeddings.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    row = make_pair("roberta", model.config, 3, 100, separators=2)
    ids, mask = pad([row, row[:50]], 1, "left")
    with torch.no_grad():
        model(ids, attention_mask=mask)
    offset = model.config.pad_token_id + 1
    expected = torch.tensor([*range(5), *(5 + i % 59 for i in range(len(row) - 5))]) + offset  # [CLS], 3 words, [SEP]
    assert torch.equal(seen[0][0], expected)
    assert torch.equal(seen[0][1][mask[1].bool()], expected[:50])
    given = torch.arange(ids.shape[1]).expand_as(ids) % 60 + offset
    with torch.no_grad():
        model(ids, attention_mask=mask, position_ids=given)
    assert torch.equal(seen[1], given)


@pytest.mark.parametrize(
    "text, pinned",
    [
        ("c q q s d d d s", "1 1 1 1 0 0 0 0"),
        ("c q q s s d d s", "1 1 1 1 0 0 0 0"),  # RoBERTa's pairs
        ("c q s d s d s d", "1 1 1 0 0 0 0 0"),  # separators inside
        ("c d d d d d d s", "0 0 0 0 0 0 0 0"),  # no pair
        ("c d d d s s s p", "0 0 0 0 0 0 0 0"),  # only separators behind
        ("p p c q s d d s", "0 0 1 1 1 0 0 0"),  # padded on the left
        ("c q q q q q s d", "1 1 1 1 0 0 0 0"),  # a segment that is too long: four are pinned
    ],
)
def test_which_tokens_are_pinned(text: str, pinned: str) -> None:
    kinds = text.split()
    ids = torch.tensor([["pcqsd".index(kind) for kind in kinds]])
    found = first_segments(ids, ids != 0, separator=3, max_tokens=4)
    assert found.long().tolist() == [[int(bit) for bit in pinned.split()]]


@pytest.mark.parametrize("model_type", READERS)
def test_the_caller_may_choose_the_tokens(model_type: str) -> None:
    """pinned_mask goes before input_ids, is the only way with embeddings, and is in all signatures."""
    model = question_answerer(model_type)
    assert "pinned_mask" in inspect.signature(model.forward).parameters
    assert "pinned_mask" in inspect.signature(model.base_model.forward).parameters
    row = make_pair(model_type, model.config, *PAIRS[0])[None]
    question, other = torch.arange(row.shape[1])[None] < 9, torch.zeros_like(row, dtype=torch.bool)
    other[:, 30:37] = True
    asks = {"question_positions": torch.ones(1, 1, dtype=torch.long)} if model_type == "splinter" else {}
    embeds = model.get_input_embeddings()(row)
    if model_type == "electra" and hasattr(model.base_model, "embeddings_project"):
        embeds = model.base_model.embeddings.word_embeddings(row)
    with torch.no_grad():
        found = model(row, **asks).start_logits
        assert torch.equal(model(row, pinned_mask=question, **asks).start_logits, found)
        assert not torch.equal(model(row, pinned_mask=other, **asks).start_logits, found)
        assert torch.equal(model(inputs_embeds=embeds, pinned_mask=question, **asks).start_logits, found)
        assert not torch.equal(model(inputs_embeds=embeds, **asks).start_logits, found)  # nothing is pinned
        with pytest.raises(ValueError, match="pinned_mask of shape"):
            model(row, pinned_mask=question[:, 1:])
        with pytest.raises(ValueError, match="names 21 tokens of a row; at most max_pinned_tokens = 20"):
            model(row, pinned_mask=torch.arange(row.shape[1])[None] < 21)
        model.config.pin_first_segment = False
        with pytest.raises(ValueError, match="pin_first_segment=False; set it"):
            model(row, pinned_mask=question)


def test_all_tokens_may_be_pinned() -> None:
    model = question_answerer("bert")
    row = make_pair("bert", model.config, 9, 8)[None]  # more than two blocks
    with torch.no_grad():
        assert model(row, pinned_mask=torch.ones_like(row)).start_logits.isfinite().all()


def test_multiple_choice_reshapes_the_mask_and_warns(monkeypatch) -> None:
    fields = {**PIN, **SIZES, "separator_token_id": load_tokenizer("bert").sep_token_id}
    said = []
    monkeypatch.setattr("lsg.modeling.lsg_encoder.logger.warning_once", said.append)
    _, model = convert_tiny("bert", "BertForMultipleChoice", **fields)
    assert any("a classifier of pairs loses by it" in text for text in said)
    row = make_pair("bert", model.config, *PAIRS[0])
    ids, mask = row.expand(2, 3, -1), torch.arange(len(row)).expand(2, 3, -1) < 9
    with torch.no_grad():
        assert torch.allclose(model(ids, pinned_mask=mask).logits, model(ids).logits)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"separator_token_id": None}, "separator_token_id=None is not allowed"),
        ({"position_period": None}, "position_period=None is not allowed"),
        ({"max_pinned_tokens": 0}, "max_pinned_tokens=0 is not allowed"),
        ({"adaptive": False}, "adaptive=False is not allowed: with pin_first_segment it must be true"),
        ({"is_decoder": True}, "causal models"),
        ({"block_size": 128, "sparse_block_size": 128}, r"below position_period - max_pinned_tokens \(384\)"),
        ({"block_size": 128, "sparse_block_size": 128}, "choose sparsity_type='none', block_size=64"),
        ({"position_period": 128}, "no sizes fit"),
    ],
)
def test_what_does_not_fit_is_said(fields: dict, message: str) -> None:
    config_class = MODEL_TYPES["bert"].config_class
    allowed = {"block_size": 32, "sparse_block_size": 32, "pin_first_segment": True, "separator_token_id": 3}
    config_class(**allowed, position_period=512)
    with pytest.raises(ValueError, match=message):
        config_class(**{**allowed, "position_period": 512, **fields})


@pytest.mark.parametrize("model_type", sorted(SEQ2SEQ))
def test_encoder_decoders_are_refused(model_type: str) -> None:
    with pytest.raises(ValueError, match="the encoders of encoder-decoders have no pinned tokens"):
        MODEL_TYPES[model_type].config_class(pin_first_segment=True, separator_token_id=2, position_period=512)


@pytest.mark.parametrize("kind", ["norm", "bos_pooling"])
def test_exported_models_pin(kind: str) -> None:
    model = question_answerer("bert", torch.float32, sparsity_type=kind)
    encoder = ExportedEncoder(model)
    names = input_names(model, load_tokenizer("bert"))
    run = export_program(encoder, names, 1100).module()
    for pair in [*PAIRS, (12, 1000), (1, 1)]:
        row = make_pair("bert", model.config, *pair)
        ids, mask = pad([row, row[:-1], row[: len(row) // 2 + 1]], 0, "left")
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        with torch.no_grad():
            for found, expected in zip(run(**inputs), encoder(**inputs), strict=True):
                assert ((found - expected).abs() * mask).max().item() < 1e-5, pair


def test_gradients_flow_as_in_rows_alone() -> None:
    model = question_answerer("bert")
    rows = [make_pair("bert", model.config, *pair) for pair in PAIRS]
    ids, mask = pad(rows, 0, "left")
    gradients = []
    for batches in ([(ids, mask)], [(row[None], torch.ones_like(row)[None]) for row in rows]):
        model.zero_grad()
        for batch, kept in batches:
            (model(batch, attention_mask=kept).start_logits * kept).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all((a - b).abs().max().item() < 1e-10 for a, b in zip(*gradients, strict=True))
