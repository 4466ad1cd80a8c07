"""--run_test of models that answer questions: a question about a long text, beside the original; the card shows how."""

import json
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
import transformers
from helpers import SMALL, initial, load_dense, load_tokenizer, run_elsewhere
from test_command import run

from lsg.model_types import MODEL_TYPES

pytestmark = pytest.mark.usefixtures("forked_self_test")


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines that conversion logs about pinning."""
    lines: list[str] = []
    monkeypatch.setattr("lsg.pinning.logger.warning", lines.append)
    return lines


def test_the_command_asks_a_question_and_says_how_to(tmp_path: Path, capfd, said: list[str]) -> None:
    """--run_test reports both answers beside each other; so do card and report. The card's snippet runs."""
    source, output, report = tmp_path / "source", tmp_path / "out", tmp_path / "report.json"
    for part in (load_dense("bert", "BertForQuestionAnswering", num_hidden_layers=1), load_tokenizer("bert")):
        part.save_pretrained(source)
    assert run(source, output, "--run_test", "--onnx", "--report", str(report)) == 0
    stdout, [line] = capfd.readouterr().out, said
    assert line.startswith("the question is pinned, so that the whole text sees it: pin_first_segment=True")
    found = json.loads(report.read_text())
    assert found["self_test"]["passed"] and found["onnx"]["largest_difference"] < 1e-4
    rows = found["self_test"]["questions"]
    assert [row["place"] for row in rows] == ["first part", "last part"]
    card = (output / "README.md").read_text()
    for text in (stdout, card):
        assert "| a question about a long text" in text and "original, on windows" in text
        assert all(row["fact"] in text and f'"{row["converted"]}"' in text for row in rows)
    compare_onnx(output)
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    [ask] = [text for text in snippets if "question, document" in text]
    again = run_elsewhere(snippets[0] + ask, tmp_path)
    assert again.returncode == 0 and again.stdout.strip() in "The key is in the tower. " * 500, again.stderr


def compare_onnx(folder: Path) -> None:
    """A pair's answer is that of the model, which is not that of the same model without pinning."""
    inputs = load_tokenizer("bert")("which word?", "a word and another one. " * 30, return_tensors="pt")
    load = MODEL_TYPES["bert"].architectures["BertForQuestionAnswering"].from_pretrained
    with torch.no_grad():
        expected, other = (load(folder, pin_first_segment=pin)(**inputs).start_logits for pin in (True, False))
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"))
    found = torch.from_numpy(session.run(["start_logits"], {name: x.numpy() for name, x in inputs.items()})[0])
    assert (found - expected).abs().max() < 1e-5 < (other - expected).abs().max()


@pytest.mark.parametrize("model_type", ["roberta", "bart"])
def test_a_question_fits_whatever_the_tokenizer_makes_of_spaces(model_type: str, tmp_path: Path, capfd, said) -> None:
    """Byte-level tokens of a sentence behind another are more than those of the sentence alone."""
    source, report = tmp_path / "source", tmp_path / "report.json"
    architecture = next(name for name in MODEL_TYPES[model_type].architectures if name.endswith("ForQuestionAnswering"))
    for part in (load_dense(model_type, architecture), load_tokenizer(model_type)):
        part.save_pretrained(source)
    options = ("--max_sequence_length", "1500", "--run_test", "--report", str(report))
    assert run(source, tmp_path / "out", *options) == 0, capfd.readouterr().err
    rows = json.loads(report.read_text())["self_test"]["questions"]
    assert [row["tokens"] for row in rows] == [1500, 1500] and all(row["original"] for row in rows)


def test_a_question_for_a_model_without_the_tokenizers_token_types(tmp_path: Path, capfd, said) -> None:
    """A RoBERTa whose tokenizer is BERT's gets no types of tokens that it does not have."""
    source, report, tokenizer = tmp_path / "source", tmp_path / "report.json", load_tokenizer("bert")
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 513, "type_vocab_size": 1, "pad_token_id": 0}
    for part in (transformers.RobertaForQuestionAnswering(transformers.RobertaConfig(**SMALL, **sizes)), tokenizer):
        part.save_pretrained(source)
    assert run(source, tmp_path / "out", "--run_test", "--report", str(report)) == 0, capfd.readouterr().err
    assert len(json.loads(report.read_text())["self_test"]["questions"]) == 2


def test_a_classifier_of_two_classes_passes_its_test(tmp_path: Path, capfd) -> None:
    """The head for multiple choice has a layer of the same name and another size."""
    source = tmp_path / "source"
    for part in (load_dense("bert", "BertForSequenceClassification", num_labels=3), load_tokenizer("bert")):
        part.save_pretrained(source)
    assert run(source, tmp_path / "out", "--run_test") == 0, capfd.readouterr().err


def test_an_untrained_head_is_not_asked(tmp_path: Path, capfd) -> None:
    assert run(initial("bert"), tmp_path / "out", "--architecture", "BertForQuestionAnswering", "--run_test") == 0
    assert "a question about a long text" not in capfd.readouterr().out
