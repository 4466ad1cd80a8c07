"""experiments/question_answering/ranking.py: questions, ranks, and a whole run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cloze_texts import make_text
from helpers import initial
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from experiments.question_answering import ranking
from experiments.question_answering.ranking_report import summarize
from experiments.question_answering.readers import Reader
from experiments.question_answering.training import Example


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder of four documents."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.txt").write_text(make_text(seed, 12), "utf-8")
    return folder


def test_the_loss_is_that_of_the_right_window() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(initial("bert"), num_labels=1).eval()
    model.classifier.weight.data.normal_()
    tokenizer = AutoTokenizer.from_pretrained(initial("bert"))
    windows = [["a b c", "d e f g", "h"], ["i j", "k l m n", "o p"], ["q", "r", "s"]]
    examples = [
        Example("Who?", windows[0], (0, 1)),
        Example("What?", windows[1], (2, 3)),
        Example("?", windows[2], None),
    ]
    expected = []
    for example in examples[:2]:
        pairs = [tokenizer(example.question, window, return_tensors="pt") for window in example.windows]
        scores = torch.cat([model(**pair).logits[0] for pair in pairs])
        expected.append(-scores.log_softmax(0)[0])
    found = ranking.ranking_loss(model, tokenizer, examples)
    assert (found - sum(expected) / 2).abs() < 1e-5 and ranking.ranking_loss(model, tokenizer, examples[2:]) == 0


def test_ranks(monkeypatch) -> None:
    """Equal scores share their ranks, and without time only one question is asked."""
    values = {"a": 3.0, "b": 5.0, "c": 3.0, "d": 1.0}
    monkeypatch.setattr(ranking, "score", lambda reader, question, text, tokenizer: (values[text] * reader.model, 0.5))
    documents = [SimpleNamespace(text=text) for text in values]
    scores = ranking.rank(
        [Reader("up", 1, 9), Reader("down", -1, 9)], [(SimpleNamespace(text=""), documents)] * 2, None, 0
    )
    assert scores["up"] == [{"reciprocal_rank": 1 / 2.5, "first": 0, "seconds": 2}]
    assert scores["down"][0]["reciprocal_rank"] == 1 / 2.5
    second = [{"reciprocal_rank": x, "first": x, "seconds": 1} for x in (1, 0, 1)]
    first = [{"reciprocal_rank": x, "first": x, "seconds": 3} for x in (0, 0, 1)]
    row, reference = summarize({"x": first, "y": second})["rows"]
    assert row["difference"] == pytest.approx(-1 / 3, abs=1e-4) and row["seconds"] == 3
    assert row["margin"] == pytest.approx(1.96 / 3, abs=1e-3) and reference["margin"] == 0  # the mean of -1, 0, 0


def test_windows_take_the_best_score_and_the_first_is_one_of_them() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(initial("bert"), num_labels=1).eval()
    model.classifier.weight.data.normal_()
    tokenizer = AutoTokenizer.from_pretrained(initial("bert"))
    text, question = make_text(1, 9), "The server?"
    options = {"truncation": "only_second", "max_length": 60, "return_overflowing_tokens": True}
    rows = tokenizer(question, text, stride=ranking.OVERLAP // 4, **options)
    pairs = zip(rows["input_ids"], rows["token_type_ids"], strict=True)
    expected = [model(torch.tensor([a]), token_type_ids=torch.tensor([b])).logits.item() for a, b in pairs]
    found = ranking.score(Reader("", model, 60, ranking.OVERLAP // 4), question, text, tokenizer)[0]
    assert found == pytest.approx(max(expected), abs=1e-5) and len(expected) > 2
    assert ranking.score(Reader("", model, 60, only_first=True), question, text, tokenizer)[0] == pytest.approx(
        expected[0], abs=1e-5
    )


def test_from_training_to_the_report(docs: Path, tmp_path: Path, monkeypatch) -> None:
    options = ["--initial_model", str(initial("bert")), "--train_text", str(docs), "--text", str(docs)]
    options += ["--steps", "2", "--batch_size", "2", "--threads", "1", "--tokens", "100", "2000", "--questions", "3"]
    options += ["--candidates", "3", "--out", str(tmp_path), "--classifier", str(tmp_path / "classifier")]
    assert ranking.main(options) == 0
    results = json.loads((tmp_path / "ranking.json").read_text("utf-8"))
    assert results["questions"] == 3 and len(results["rows"]) == 6
    assert all(row["seconds"] > 0 and 1 / 3 <= row["reciprocal_rank"] <= 1 for row in results["rows"])
    assert "chance is 0.611" in (tmp_path / "ranking.md").read_text("utf-8")
    assert (tmp_path / "ranking.png").stat().st_size > 10_000
    monkeypatch.setattr("experiments.question_answering.training.train", None)  # it is trained already
    assert ranking.main([*options, "--name", "again"]) == 0
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))
    assert [row["reciprocal_rank"] for row in again["rows"]] == [row["reciprocal_rank"] for row in results["rows"]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--candidates", "9"], "there are 4 documents"),
        (["--candidates", "1"], "--candidates 1"),
        (["--text", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_bad_options_end_in_one_line(change: list[str], expected: str, docs: Path, tmp_path: Path, capsys) -> None:
    options = ["--initial_model", str(initial("bert")), "--train_text", str(docs), "--text", str(docs)]
    options += ["--steps", "1", "--batch_size", "1", "--threads", "1", "--tokens", "100", "2000"]
    assert ranking.main([*options, *change, "--out", str(tmp_path)]) == 1
    message = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(message) == 1 and expected in message[0]
