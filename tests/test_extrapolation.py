"""The extrapolation experiments: the same masked tokens everywhere, known answers, whole runs, refusals."""

import json
from pathlib import Path

import pytest
import torch
from helpers import ROOT, initial
from transformers import AutoModelForMaskedLM

from experiments.common.masked_lm import chosen_logits
from experiments.common.models import load_encoder, tokens_read
from experiments.extrapolation import embedding, loss_report, masked_loss, needle, variants
from experiments.extrapolation.masked_text import boundary_distance, distance_bins, mask_tokens, whole_windows
from experiments.extrapolation.needle_data import NEEDLES, hide, make_haystacks, split_chunks
from experiments.extrapolation.variants import CHUNKS, FULL, token_losses, with_tiled_positions
from lsg_converter import LSGConverter

DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
PROSE = (ROOT / "README.md").read_text("utf-8") + (ROOT / "experiments" / "demo" / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def demo():
    return load_encoder(str(DEMO), AutoModelForMaskedLM)


@pytest.fixture(scope="module")
def text(demo):
    return mask_tokens(whole_windows([PROSE], demo[1], 1024, 2), demo[1], 512, 0.15, 0)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    file = tmp_path / "prose.txt"
    file.write_text(PROSE, "utf-8")
    return file


def losses(model, text, length: int) -> torch.Tensor:
    return token_losses(model, text, length, lambda _: None)


def test_the_same_tokens_are_masked_at_every_length(text) -> None:
    seen = {}
    for length in (512, 1024):
        ids, chosen = text.windows(length)
        assert ids.shape == chosen.shape == (len(text.tokens) // length, length)
        assert (ids[chosen] == text.mask).all()
        assert (ids[:, 0] == text.start).all() and (ids[:, -1] == text.end).all()
        seen[length] = chosen.flatten().nonzero()[:, 0]
    assert torch.equal(seen[512], seen[1024]) and torch.equal(seen[512], text.places)
    assert not (text.targets == text.mask).any() and not torch.isin(text.places % 512, torch.tensor([0, 511])).any()
    assert 0.1 < len(text.targets) / len(text.tokens) < 0.16


def test_every_other_token_may_be_masked(demo) -> None:
    text = mask_tokens(whole_windows([PROSE, PROSE], demo[1], 1024, 9), demo[1], 512, 1.0, 0)
    left = (~text.chosen).nonzero()[:, 0]
    special = torch.isin(text.tokens[left], torch.tensor(demo[1].all_special_ids))
    assert special.any() and set((left[~special] % 512).tolist()) == {0, 511}
    assert not text.chosen.view(-1, 512)[:, [0, 511]].any()


def test_distance_from_the_boundaries() -> None:
    places = torch.tensor([0, 1, 255, 256, 510, 511, 512, 600, 1023, 1024])
    assert boundary_distance(places, 512).tolist() == [0, 1, 255, 255, 1, 0, 0, 88, 0, 0]
    assert distance_bins(512) == [(0, 15), (16, 63), (64, 127), (128, 255)]
    assert distance_bins(64) == [(0, 15), (16, 31)]


def test_logits_of_the_masked_tokens_are_those_of_all_tokens(demo, text) -> None:
    ids, chosen = (x[:1] for x in text.windows(512))
    with torch.no_grad():
        expected = demo[0](input_ids=ids).logits[chosen]
        assert (chosen_logits(demo[0], ids, chosen) - expected).abs().max() < 1e-5
        assert demo[0](input_ids=ids).logits.shape[:2] == ids.shape  # the hook is gone


def test_losses_do_not_depend_on_the_batch(demo, text, monkeypatch) -> None:
    together, read = losses(demo[0], text, 512), []
    monkeypatch.setattr(variants, "BATCH_TOKENS", 1024)
    assert (token_losses(demo[0], text, 512, read.append) - together).abs().max() < 1e-4
    assert read == [1024, 1024] and together.shape == text.targets.shape


def test_lsg_is_the_original_where_it_is_dense(demo, text) -> None:
    model, tokenizer = demo
    assert tokens_read(model.config) == 512
    full = with_tiled_positions(model, 1024)
    assert tokens_read(full.config) == 1024 and tokens_read(model.config) == 512
    assert full.base_model.embeddings.position_embeddings.num_embeddings == 1024 + 2
    converted, _ = LSGConverter(1024).convert(model, tokenizer, block_size=256, mask_first_token=True)
    chunks = losses(model, text, 512)
    assert (losses(full, text, 512) - chunks).abs().max() < 1e-4
    assert (losses(converted, text, 512) - chunks).abs().max() < 1e-4
    assert (losses(converted, text, 1024) - chunks).abs().max() > 0.1
    dense, _ = LSGConverter(1024).convert(model, tokenizer, block_size=512, mask_first_token=True)
    assert (losses(dense, text, 1024) - losses(full, text, 1024)).abs().max() < 1e-3


def test_paired_difference_of_made_up_losses() -> None:
    loss, reference = torch.tensor([2.0, 4.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 3.0])
    found = loss_report.paired_difference(loss, reference, torch.tensor([7, 7, 9, 9]))
    # differences 1, 3, 2, 0 with mean 1.5; sums of their deviations by span: 1 and -1; sqrt(2 * 2 / 1) / 4
    assert found == {"tokens": 4, "loss": 3.0, "difference": 1.5, "standard_error": 0.5}


def test_masked_loss_from_end_to_end(tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--factors", "1", "2", "--windows", "2", "--sparsity_types", "none", "stride", "--block_sizes", "64"]
    assert masked_loss.main(["--text", str(prose), "--out", str(tmp_path / "out"), *options]) == 0
    results = json.loads((tmp_path / "out" / "masked_loss.json").read_text())
    assert results["text"]["tokens"] == 2048 and results["original_length"] == 512
    found = {(row["variant"], row["length"]): row for row in results["rows"]}
    assert {name for name, _ in found} == set(results["variants"]) and {length for _, length in found} == {512, 1024}
    for row in results["rows"]:
        assert row["tokens"] == results["text"]["masked"] == sum(near["tokens"] for near in row["by_distance"])
        assert row["difference"] == pytest.approx(row["loss"] - found[CHUNKS, 512]["loss"], abs=2e-4)
    assert found[FULL, 512]["difference"] == 0
    assert found["none, b=64", 1024]["loss"] < found[FULL, 1024]["loss"]
    assert (tmp_path / "out" / "masked_loss.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "out" / "masked_loss.png").stat().st_size > 10_000


def test_ranks_of_made_up_vectors() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.3, 0.3, 0.3]])
    assert embedding.right_ranks(scores).tolist() == [1, 2, 3]  # a tie is lost
    assert embedding.retrieval(scores) == {"accuracy": 0.3333, "reciprocal_rank": 0.6111}


def test_scores_of_made_up_chunks() -> None:
    queries = torch.eye(2)
    chunks = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0]])]
    assert embedding.best_chunk_scores(queries, chunks).tolist() == [[1, 0], [1, 1]]
    averages = embedding.average_chunks(chunks)
    assert torch.allclose(averages, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_a_needle_is_hidden_whole_at_the_end_of_a_paragraph() -> None:
    haystack, sought = [list(range(10 * i, 10 * i + 10)) for i in range(10)], [-1, -2, -3]
    for depth, place in ((0, 0), (0.25, 10), (0.5, 20), (0.9, 30), (1, 37)):
        document = hide(haystack, sought, 40, depth)
        assert document == [*range(place), *sought, *range(place, 37)]
    assert any(sought == own[-3:] for own in split_chunks([*range(9), *sought, *range(9)], 12))
    for size in (1, 12, 13, 40, 41):
        chunks = split_chunks(list(range(size)), 12)
        assert max(map(len, chunks)) <= 12 and sorted({x for own in chunks for x in own}) == list(range(size))
    assert len(NEEDLES) == len({sentence for sentence, _ in NEEDLES}) == len({query for _, query in NEEDLES})


def test_haystacks_do_not_share_text(demo) -> None:
    texts = [f"Text {number} is here.\n\nIt goes on with {number}." for number in range(20)]
    haystacks = make_haystacks(texts, demo[1], 3, 40, seed=0)
    assert [sum(map(len, own)) >= 40 for own in haystacks] == [True] * 3
    paragraphs = [tuple(paragraph) for own in haystacks for paragraph in own]
    assert len(paragraphs) == len(set(paragraphs)) and () not in paragraphs
    assert haystacks == make_haystacks(texts, demo[1], 3, 40, seed=0) != make_haystacks(texts, demo[1], 3, 40, seed=1)


def test_embeddings_ignore_the_padding_of_a_batch(demo) -> None:
    model, tokenizer = demo[0].base_model, demo[1]
    rows = [list(range(10, 20)), list(range(30, 70))]
    together = embedding.embed(model, tokenizer, rows, lambda _: None)
    alone = torch.cat([embedding.embed(model, tokenizer, [row], lambda _: None) for row in rows])
    assert (together - alone).abs().max() < 1e-5 and torch.allclose(together.norm(dim=1), torch.ones(2))


def test_needle_from_end_to_end(tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture) -> None:
    options = "--lengths 256 1024 --depths 0 1 --needles 2 --model_kwargs".split() + ["{'block_size': 64}"]
    source = ["--checkpoint", str(initial("bert")), "--text", str(prose)]
    assert needle.main([*source, *options, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "needle.json").read_text())["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert methods[:2] == ["LSG, block_size=64", FULL] and len(methods) == 8 and len(rows) == 8 * 2 * 2
    assert all(row["accuracy"] in (0, 0.5, 1) and 0.5 <= row["reciprocal_rank"] <= 1 for row in rows)
    assert (tmp_path / "needle.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "needle.png").stat().st_size > 10_000


UNKNOWN_FIELD = ["--model_kwargs", "{'block': 1}"]
BAD = [
    ("masked_loss", ["--text", "missing.txt"], 1, "missing.txt: it cannot be read: No such file"),
    ("masked_loss", ["--text", "empty.txt"], 1, "empty.txt: the file is empty"),
    ("masked_loss", ["--text", "binary.txt"], 1, "binary.txt: a text file in UTF-8 is expected"),
    ("masked_loss", ["--text", "short.txt"], 1, "tokens, the longest window 8192"),
    ("masked_loss", ["--block_sizes", "30", "--sparsity_factor", "4"], 1, "it must divide block_size (30)"),
    ("masked_loss", ["--sparsity_types", "tree"], 1, "choose one of norm, pooling"),
    ("masked_loss", ["--factors", "3", "4"], 1, "--factors 3 is not allowed: it must divide the largest, 4"),
    ("masked_loss", ["--windows", "0"], 1, "--windows 0 is not allowed: it must be at least 1"),
    ("masked_loss", ["--masked_share", "2"], 1, "--masked_share 2.0 is not allowed"),
    ("masked_loss", ["--masked_share", "some"], 2, "invalid float value: 'some'"),
    ("masked_loss", ["--checkpoint", "./nowhere", "--text", "short.txt"], 1, "./nowhere: no such folder"),
    ("masked_loss", ["--checkpoint", str(initial("bart")), "--text", "short.txt"], 1, "this is an encoder-decoder"),
    ("masked_loss", ["--out", "short.txt", "--text", "short.txt"], 1, "--out short.txt: no folder can be made there"),
    ("needle", [], 2, "--checkpoint"),
    ("needle", ["--checkpoint", str(DEMO), "--needles", "99"], 1, "--needles 99 is not allowed: it must be at least 2"),
    ("needle", ["--checkpoint", str(DEMO), "--lengths", "20"], 1, "--lengths 20 is not allowed"),
    ("needle", ["--checkpoint", str(DEMO), "--depths", "1.5"], 1, "--depths 1.5 is not allowed"),
    ("needle", ["--checkpoint", str(DEMO), "--text", "short.txt"], 1, "documents of 4096 are needed"),
    ("needle", ["--checkpoint", str(DEMO), "--text", "short.txt", *UNKNOWN_FIELD], 1, "unknown field"),
]


@pytest.mark.parametrize(("script", "options", "code", "expected"), BAD, ids=[" ".join(row[1][-2:]) for row in BAD])
def test_bad_input_ends_in_one_line(
    script: str, options: list[str], code: int, expected: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("short.txt").write_text("A short text. " * 20)
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    out = [] if "--out" in options else ["--out", "out"]
    try:
        found = {"masked_loss": masked_loss, "needle": needle}[script].main([*options, *out])
    except SystemExit as error:
        found = error.code
    message = capsys.readouterr().err
    assert found == code and expected in message and message.count("\n") == 1, message


def test_a_checkpoint_without_the_head_is_refused(demo, tmp_path: Path, prose: Path, capsys) -> None:
    model, tokenizer = demo
    for name, saved in (("base", model.base_model), ("lsg", LSGConverter(512).convert(model, tokenizer)[0])):
        saved.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        options = ["--checkpoint", str(tmp_path / name), "--text", str(prose), "--out", str(tmp_path)]
        assert masked_loss.main(options) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "not a checkpoint for RobertaForMaskedLM, as it lacks lm_head." in first
    assert "a plain encoder is expected, this is an LSG checkpoint" in second
