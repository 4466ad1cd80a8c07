"""The extrapolation experiments: the same masked tokens everywhere, known answers, whole runs, refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import ROOT, initial
from transformers import AutoModelForMaskedLM

from experiments.common import masked_readers
from experiments.common.documents import Document, read_documents
from experiments.common.errors import InputError
from experiments.common.masked_lm import chosen_logits
from experiments.common.masked_readers import Reader
from experiments.common.masked_text import MaskedDocument, mask_documents
from experiments.common.models import load_encoder, tokens_read
from experiments.common.statistics import paired_difference
from experiments.common.tokens import choose_documents, encode
from experiments.extrapolation import loss_report, masked_loss
from experiments.extrapolation.variants import FULL, SETTINGS, make_readers, with_tiled_positions
from lsg_converter import LSGConverter

DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
PAGES = [ROOT / "docs" / name for name in ("usage.md", "architecture.md")]  # each of 1,024 tokens and more
PROSE = (ROOT / "README.md").read_text("utf-8") + (ROOT / "experiments" / "demo" / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def demo():
    return load_encoder(str(DEMO), AutoModelForMaskedLM)


@pytest.fixture(scope="module")
def document(demo) -> MaskedDocument:
    """1,022 tokens of a page."""
    [page] = choose_documents(read_documents(PAGES[:1]), demo[1], [1024, 8192], 1, 0)
    return mask_documents([encode([page.text], demo[1])[0][:1022]], demo[1], 0.15, 0)[0]


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    file = tmp_path / "prose.txt"
    file.write_text(PROSE, "utf-8")
    return file


def first(document: MaskedDocument, count: int) -> MaskedDocument:
    """Return the first tokens of a document."""
    return MaskedDocument(document.tokens[:count], document.chosen[:count], *special(document))


def special(document: MaskedDocument) -> tuple[int, int, int]:
    return document.start, document.end, document.mask


def test_windows_of_ten_tokens() -> None:
    chosen = torch.tensor([0, 1, 1, 1, 0, 1, 1, 1, 1, 1], dtype=torch.bool)
    document = MaskedDocument(torch.arange(10, 20), chosen, 1, 2, 3)
    ids, predicted = document.windows(4, 3)  # of tokens 0 to 3, 3 to 6, 6 to 9
    assert ids.tolist() == [[1, 10, 3, 3, 3, 2], [1, 3, 14, 3, 3, 2], [1, 3, 3, 3, 3, 2]]
    # tokens 3 and 6 are equally far from an end in both windows: the first one counts
    assert predicted.int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 0]]
    ids, predicted = document.windows(4, 4)  # of tokens 0 to 3, 4 to 7, 6 to 9
    assert ids[:, 1].tolist() == [10, 14, 3] and predicted.sum(1).tolist() == [3, 2, 3]
    whole, predicted = document.windows(10, 1)
    assert whole.tolist() == [[1, 10, 3, 3, 3, 14, 3, 3, 3, 3, 3, 2]]
    assert torch.equal(predicted[0, 1:-1], chosen)


@pytest.mark.parametrize("step", [510, 382, 255, 127, 1])
def test_each_token_is_predicted_once_where_it_has_most_context(document: MaskedDocument, step: int) -> None:
    ids, predicted = document.windows(510, step)
    assert (ids[:, 0] == document.start).all() and (ids[:, -1] == document.end).all()
    assert (ids[predicted] == document.mask).all()
    starts = [*range(0, 1022 - 510, step), 1022 - 510]
    assert len(ids) == len(starts)
    rows, columns = predicted.nonzero(as_tuple=True)
    places = [starts[row] + column - 1 for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
    assert places == document.chosen.nonzero()[:, 0].tolist()
    for place, row in zip(places, rows.tolist(), strict=True):
        context = [min(place - start, start + 509 - place) for start in starts]
        assert context[row] == max(context)


def test_choice_of_documents(demo) -> None:
    words = ["The", " result", " is", " returned", "."]
    documents = [Document(str(count), "".join(words)) for count in range(30)]
    documents += [Document("long", "".join(words * 3)), Document("longer", "".join(words * 4))]
    size = len(encode(["".join(words)], demo[1])[0])
    assert len(choose_documents(documents, demo[1], [size + 2, size + 2], 99, 0)) == 30
    assert [d.name for d in choose_documents(documents, demo[1], [size + 3, 3 * size + 2], 99, 0)] == ["long"]
    several = [choose_documents(documents, demo[1], [size, 99], 5, seed) for seed in range(9)]
    assert {len(chosen) for chosen in several} == {5} and len({str(chosen) for chosen in several}) > 1
    with pytest.raises(InputError, match="none of 32 documents has 3 to 4 tokens"):
        choose_documents(documents, demo[1], [3, 4], 5, 0)


def test_special_tokens_are_not_masked(demo) -> None:
    ids = [[5, demo[1].mask_token_id, 6, demo[1].eos_token_id, 7]] * 20
    chosen = torch.stack([document.chosen for document in mask_documents(ids, demo[1], 0.5, 0)])
    assert chosen.any(0).tolist() == [True, False, True, False, True] and not chosen.all(0).any()
    again, other = (torch.stack([d.chosen for d in mask_documents(ids, demo[1], 0.5, seed)]) for seed in (0, 1))
    assert torch.equal(again, chosen) and not torch.equal(other, chosen)
    with pytest.raises(InputError, match="no token was chosen"):
        mask_documents([[demo[1].eos_token_id]], demo[1], 0.5, 0)


def test_logits_of_the_masked_tokens_are_those_of_all_tokens(demo, document: MaskedDocument) -> None:
    ids, chosen = (x[:1] for x in document.windows(510, 510))
    with torch.no_grad():
        expected = demo[0](input_ids=ids).logits[chosen]
        assert (chosen_logits(demo[0], ids, chosen) - expected).abs().max() < 1e-5
        assert demo[0](input_ids=ids).logits.shape[:2] == ids.shape  # the hook is gone


def test_losses_do_not_depend_on_the_batch(demo, document: MaskedDocument, monkeypatch) -> None:
    reader = Reader("overlapping windows", demo[0], 510, 127)
    together = reader.losses(document)
    monkeypatch.setattr(masked_readers, "BATCH_TOKENS", 1024)
    assert (reader.losses(document) - together).abs().max() < 1e-4 and together.shape == document.targets.shape
    ids, chosen = document.windows(510, 127)
    with torch.no_grad():
        logits = demo[0](input_ids=ids[1:2]).logits[chosen[1:2]]
    before = int(chosen[:1].sum())
    targets = document.targets[before : before + len(logits)]
    expected = logits.logsumexp(1) - logits[torch.arange(len(logits)), targets]
    assert (together[before : before + len(logits)] - expected).abs().max() < 1e-4


def test_lsg_is_the_original_where_it_is_dense(demo, document: MaskedDocument) -> None:
    model, tokenizer = demo
    assert tokens_read(model.config) == 512
    full = with_tiled_positions(model, 1024)
    assert tokens_read(full.config) == 1024 and tokens_read(model.config) == 512
    assert full.base_model.embeddings.position_embeddings.num_embeddings == 1024 + 2
    settings = [{"block_size": 256}, {"block_size": 512}]
    original, *_, full_reader, lsg, dense = make_readers(model, tokenizer, settings, 1024)
    short = first(document, 510)
    for reader in (full_reader, lsg, dense):
        assert (reader.losses(short) - original.losses(short)).abs().max() < 1e-4
    assert (lsg.losses(document) - original.losses(document)).abs().max() > 0.1
    assert (dense.losses(document) - full_reader.losses(document)).abs().max() < 1e-3


def test_readers_and_their_reach(demo) -> None:
    fields = {"block_size": 64, "sparse_block_size": 32, "num_global_tokens": 4, "mask_first_token": False}
    readers = make_readers(*demo, [*SETTINGS, fields], 1024)
    assert [(r.size, r.step) for r in readers[:5]] == [(510, 510), (510, 382), (510, 255), (510, 127), (None, 1)]
    assert readers[4].name == FULL and {reader.reach for reader in readers[:5]} == {None}
    found = {reader.name: reader.reach for reader in readers[5:]}
    assert len(found) == len(SETTINGS) + 1
    assert found["LSG norm, b = s = 128, f = 2"] == found["LSG none, b = 256"] == 511
    assert found["LSG norm, b = 256, s = 128, f = 2"] == 767 and found["LSG none, b = 64"] == 127
    name = "LSG norm, b = 64, s = 32, f = 2, num_global_tokens = 4, mask_first_token = False"
    assert found[name] == 2 * 64 - 1 + 32 * 2
    assert readers[-1].model.config.mask_first_token is False and readers[-2].model.config.mask_first_token is True
    original, lsg = (dict(r.model.named_parameters(remove_duplicate=False)) for r in (readers[0], readers[-1]))
    places = {weight.data_ptr() for weight in original.values()}
    own = {name for name, weight in lsg.items() if weight.data_ptr() not in places}  # the others are in memory once
    assert {name.split(".")[-2] for name in own} == {"position_embeddings", "global_embeddings"}


def test_paired_difference_of_made_up_losses() -> None:
    loss, reference = torch.tensor([2.0, 4.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 3.0])
    found = paired_difference(loss, reference, torch.tensor([7, 7, 9, 9]))
    # differences 1, 3, 2, 0 with mean 1.5; sums of their deviations by document: 1 and -1; sqrt(2 * 2 / 1) / 4
    assert found == {"mean": 3.0, "difference": 1.5, "margin": 0.98}


def test_summary_of_made_up_losses(demo) -> None:
    chosen = torch.tensor([True, True, False])
    documents = [MaskedDocument(torch.arange(size), chosen[:size], 0, 2, 4) for size in (3, 2)]
    readers = [Reader("chunks", demo[0], 2, 2), Reader("LSG", demo[0], reach=511)]
    losses = [torch.tensor([1.0, 1.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 3.0, 3.0])]
    found = loss_report.summarize(readers, losses, [0.018, 0.027], documents)
    assert found["documents"] == 2 and found["tokens"] == {"fewest": 4, "most": 5, "all": 9, "masked": 4}
    row = {"reader": "LSG", "reach": 511, "loss": 3.0, "difference": 1.5, "margin": 0.98, "seconds": 3.0, "cost": 1.5}
    assert found["rows"][1] == row and found["rows"][0]["difference"] == found["rows"][0]["margin"] == 0


def test_masked_loss_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for page in PAGES:
        shutil.copy(page, tmp_path)
    (tmp_path / "short.txt").write_text("This document is too short to be read here.")
    settings = ["--model_kwargs", "{'sparsity_type': 'none', 'block_size': 128}", "{'block_size': 64}"]
    options = ["--text", str(tmp_path), "--out", str(tmp_path / "out"), "--name", "masked_loss_pages", *settings]
    assert masked_loss.main(options) == 0
    written = tmp_path / "out" / "masked_loss_pages.json"
    results = json.loads(written.read_text())
    assert results["documents"] == 2 and 1024 <= results["tokens"]["fewest"] < results["tokens"]["most"]
    found = {row["reader"]: row for row in results["rows"]}
    assert [row["reach"] for row in results["rows"]] == [*[None] * 5, 255, 127 + 256]
    chunks, full, lsg = (found[name] for name in ("chunks of 510", FULL, "LSG none, b = 128"))
    for row in results["rows"]:
        assert row["difference"] == pytest.approx(row["loss"] - chunks["loss"], abs=2e-4) and row["seconds"] > 0
    assert lsg["loss"] + 1 < full["loss"] and lsg["margin"] > 0
    table = written.with_suffix(".md").read_text()
    assert table in capsys.readouterr().out
    written.with_suffix(".png").unlink()
    with pytest.raises(SystemExit) as end:
        masked_loss.main(["--draw", str(tmp_path / "out")])
    assert end.value.code == 0 and written.with_suffix(".md").read_text() == table
    assert written.with_suffix(".png").stat().st_size > 10_000


SHORT = ["--text", "short.txt"]
BAD = [
    ([], 2, "the following arguments are required: --text"),
    (["--text", "missing.txt"], 1, "missing.txt: no such file or folder"),
    (["--text", "empty.txt"], 1, "empty.txt: no document with English prose"),
    (["--text", "short.txt"], 1, "none of 1 documents has 1024 to 8192 tokens"),
    ([*SHORT, "--tokens", "500", "900"], 1, "--tokens 500 900 is not allowed: at least 512"),
    ([*SHORT, "--tokens", "900", "800"], 1, "--tokens 900 800 is not allowed"),
    ([*SHORT, "--documents", "0"], 1, "--documents 0 is not allowed: it must be at least 1"),
    ([*SHORT, "--model_kwargs", "{'sparsity_factor': 3}"], 1, "it must divide block_size (128)"),
    ([*SHORT, "--model_kwargs", "{'sparsity_type': 'tree'}"], 1, "choose one of norm, pooling"),
    ([*SHORT, "--model_kwargs", "{'block': 1}"], 1, "unknown field"),
    ([*SHORT, "--masked_share", "2"], 1, "--masked_share 2.0 is not allowed"),
    ([*SHORT, "--masked_share", "some"], 2, "invalid float value: 'some'"),
    ([*SHORT, "--checkpoint", "./nowhere"], 1, "./nowhere: no such folder"),
    ([*SHORT, "--checkpoint", str(initial("bart"))], 1, "this is an encoder-decoder"),
    ([*SHORT, "--out", "short.txt"], 1, "--out short.txt: no folder can be made there"),
]


@pytest.mark.parametrize(("options", "code", "expected"), BAD, ids=[" ".join(row[0][-2:]) for row in BAD])
def test_bad_input_ends_in_one_line(
    options: list[str], code: int, expected: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("short.txt").write_text("A short text about nothing at all. " * 20)
    out = [] if "--out" in options else ["--out", "out"]
    try:
        found = masked_loss.main([*options, *out])
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
