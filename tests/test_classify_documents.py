"""experiments/classification/long_documents.py: classes, ways, and a whole run."""

import json
from pathlib import Path

import pytest
import torch
from cloze_texts import make_text
from helpers import initial
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from experiments.classification import long_documents
from experiments.classification.ways import Labelled, Way, classify, fine_tune, make_ways
from experiments.classification.ways_report import summarize


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with two classes of four documents, and one with too few."""
    for first, (name, count) in enumerate((("birds", 4), ("trees", 4), ("stones", 1))):
        folder = tmp_path / "docs" / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.txt").write_text(
                f"This is a text about {name}.\n\n{make_text(10 * first + number, 6)}", "utf-8"
            )
    return tmp_path / "docs"


def plain(num_labels: int = 2):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(initial("bert"), num_labels=num_labels).eval()
    model.classifier.weight.data.normal_()
    return model


def test_ways_read_what_they_say() -> None:
    tokenizer = AutoTokenizer.from_pretrained(initial("bert"))
    text = make_text(3, 20)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    first, windows, converted, later = make_ways(plain, tokenizer, 512, 2000)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id

    def logits(model, part):
        return model(input_ids=torch.tensor([[start, *part, end]])).logits[0]

    assert 512 < len(ids) < 2000
    assert (first.logits(text) - logits(plain(), ids[:510])).abs().max() < 1e-5
    starts = range(0, len(ids) - 64, 510 - 64)
    expected = torch.stack([logits(plain(), ids[begin : begin + 510]) for begin in starts]).mean(0)
    assert (windows.logits(text) - expected).abs().max() < 1e-5
    assert (converted.logits(text) - logits(converted.model, ids)).abs().max() < 1e-5
    assert not later.learns and (later.logits(text) - converted.logits(text)).abs().max() < 1e-6
    with torch.no_grad():
        windows.model.classifier.bias.add_(1)  # as by fine-tuning
    later = list(make_ways(lambda: windows.model, tokenizer, 512, 2000))[-1]
    assert (later.logits(text) - converted.logits(text) - 1).abs().max() < 1e-5


def test_fine_tuning_learns_and_is_repeatable() -> None:
    tokenizer = AutoTokenizer.from_pretrained(initial("bert"))
    documents = [Labelled(make_text(seed, 3), seed % 2) for seed in range(4)]
    found = []
    for _ in range(2):
        way = Way("a", plain(), tokenizer, 64)
        fine_tune(way, documents, 20, 4, 1e-2, 0)
        assert classify(way, documents)["found"] == [0, 1, 0, 1]
        found.append(way.logits(documents[0].text))
    assert torch.equal(*found)


def test_figures() -> None:
    answers = {"x": {"found": [0, 1, 1, 0]}, "y": {"found": [0, 1, 0, 1]}}
    rows = summarize(answers, [0, 1, 0, 1])["rows"]
    assert [row["mean"] for row in rows] == [0.5, 1.0] and rows[1]["difference"] == 0.5
    assert rows[1]["margin"] == pytest.approx(1.96 * (0.25 / 3) ** 0.5, abs=1e-3)  # the mean of 0, 0, 1, 1


def test_a_run(docs: Path, tmp_path: Path, capsys) -> None:
    options = ["--initial_model", initial("bert"), "--text", docs, "--tokens", 100, 2000, "--least", 4, "--epochs", 1]
    arguments = [str(option) for option in [*options, "--out", tmp_path / "out", "--held_out", 0.5]]
    assert long_documents.main(arguments) == 0
    results = json.loads((tmp_path / "out" / "long_documents.json").read_text())
    assert results["classes"] == ["birds", "trees"] and results["labels"] == [0, 0, 1, 1] and results["learned"] == 4
    assert len(results["rows"]) == 4 and str(tmp_path) not in json.dumps(results)
    assert (tmp_path / "out" / "long_documents.png").exists()
    assert "4 documents of 100 to 2,000 tokens from docs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option, message",
    [
        (
            ("--least", 5),
            "tokens are expected; there are: birds 4, stones 1, trees 4",
        ),
        (("--held_out", 1), "--held_out 1.0 is not allowed: it must be at least 0.05 and at most 0.95"),
        (("--text", "nowhere"), "--text nowhere: no such file or folder"),
    ],
)
def test_bad_input_ends_with_one_line(option: tuple, message: str, docs: Path, tmp_path: Path, capsys) -> None:
    options = [
        "--initial_model",
        initial("bert"),
        "--text",
        docs,
        "--tokens",
        100,
        2000,
        "--out",
        tmp_path / "out",
        *option,
    ]
    assert long_documents.main([str(option) for option in options]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
