"""Continued training on long documents: spans, the loss, the budget of time, whole runs, the comparison, refusals."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from finetuning_runs import losses, own_cache, results_of  # noqa: F401 (own_cache is a fixture)
from helpers import ROOT, initial, load_tokenizer
from long_range import FILLER
from transformers import AutoModelForMaskedLM, TrainingArguments

from experiments.adaptation import arms, compare, masked_training, run_adaptation
from experiments.adaptation.masked_training import MaskedLMTrainer, TimeBudget
from experiments.adaptation.spans import ChunkCollator, hold_out, make_spans, split_evenly
from experiments.common.documents import Document
from experiments.common.errors import InputError
from experiments.common.finetuning import cross_entropy
from experiments.common.masked_text import MaskedDocument
from experiments.common.models import load_encoder

DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
SMALL = ["--min_words", 50, "--span", 300, "--batch_size", 2, "--logging_steps", 1, "--learning_rate", 0.01]
LSG = ["--convert", "--max_sequence_length", 600, "--block_size", 16, "--sparse_block_size", 16]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder of four documents of 1,040 words."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(4):
        rng = random.Random(number)
        sentences = [" ".join(["The", *rng.choices(FILLER, k=19)]) + "." for _ in range(52)]
        (folder / f"{number}.txt").write_text("\n\n".join(sentences))
    return folder


def run(text: Path, output: Path, *options: object) -> int:
    arguments = ["--text", text, "--model", initial("roberta"), "--output_dir", output, *SMALL, *options]
    return run_adaptation.main([str(part) for part in arguments])


def test_even_parts() -> None:
    assert split_evenly([*range(7)], 3) == [[0, 1], [2, 3], [4, 5, 6]] and split_evenly([*range(6)], 3)[1] == [3, 4, 5]
    assert split_evenly([5], 3) == [[5]] and split_evenly([], 3) == []
    for length in range(1, 40):
        parts = split_evenly([*range(length)], 7)
        assert sum(parts, []) == [*range(length)] and len(parts) == -(-length // 7)
        assert max(map(len, parts)) <= 7 and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_chunks_and_spans_hold_the_same_tokens() -> None:
    tokenizer = load_tokenizer("roberta")
    words = "the value of the index is an array. " * 30
    spans = make_spans(tokenizer, 102)({"text": [words, words[:200]]})["input_ids"]
    whole = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (words, words[:200])]
    assert sum(spans, []) == sum(whole, []) and max(map(len, spans)) <= 100
    rows = [{"input_ids": span} for span in spans]
    for size in (102, 22):
        collator = ChunkCollator(tokenizer, size, 0.3)
        batch, torch_state = collator(rows), torch.get_rng_state()
        assert torch.equal(batch["labels"], collator(rows)["labels"]) and torch.equal(
            torch.get_rng_state(), torch_state
        )
        collator.epoch = 1
        assert not torch.equal(batch["labels"], collator(rows)["labels"])
        assert batch["input_ids"].shape[1] <= size and len(batch["input_ids"]) >= len(rows)
        is_text = batch["attention_mask"].bool()
        for ids, labels, real in zip(batch["input_ids"], batch["labels"], is_text, strict=True):
            assert ids[real][0] == tokenizer.cls_token_id and ids[real][-1] == tokenizer.sep_token_id
            assert (labels[~real] == -100).all() and labels[0] == labels[real][-1] == -100
        original = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])[is_text]
        special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
        assert original[~torch.isin(original, special)].tolist() == sum(whole, [])
        share = (batch["labels"] != -100).sum() / len(sum(whole, []))
        assert 0.2 < share < 0.4


def test_documents_that_are_held_out() -> None:
    documents = [Document(str(number), "") for number in range(10)]
    training, held_out = hold_out(documents, 3, 0)
    assert len(held_out) == 3 and sorted(d.name for d in training + held_out) == [d.name for d in documents]
    assert hold_out(documents, 3, 0) == (training, held_out) != hold_out(documents, 3, 1)
    with pytest.raises(InputError, match="10 documents cannot be held out of 10"):
        hold_out(documents, 10, 0)


def test_the_loss_is_that_of_all_logits(tmp_path: Path) -> None:
    """The model's own loss is the mean over the same tokens."""
    model, tokenizer = load_encoder(str(DEMO), AutoModelForMaskedLM)
    batch = ChunkCollator(tokenizer, 40, 0.3)([{"input_ids": [*range(10, 110)]}, {"input_ids": [*range(50, 73)]}])
    assert not batch["attention_mask"].all()
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    trainer = MaskedLMTrainer(model, arguments, compute_loss_func=cross_entropy)
    labels = batch["labels"].clone()
    count = (labels != -100).sum()
    expected = model(**batch).loss.item()
    assert trainer.compute_loss(model, batch).item() == pytest.approx(expected, abs=1e-5)
    assert trainer.compute_loss(model, batch, num_items_in_batch=2 * count).item() == pytest.approx(expected / 2)
    assert torch.equal(batch["labels"], labels)
    assert model(**batch).logits.shape[:2] == labels.shape  # nothing is left behind


def test_a_budget_of_time(monkeypatch) -> None:
    """On a clock that the test turns: one second a step, ten for saving."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(masked_training.time, "process_time", lambda: clock.now)
    budget, optimizer = TimeBudget(10 / 60, warmup=0.2), SimpleNamespace(param_groups=[{}, {}])
    args, control = SimpleNamespace(learning_rate=8.0), SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(log_history=[{"loss": 1.0, "cpu_seconds": 3.0}, {"eval_loss": 1.0}], global_step=3)
    budget.on_train_begin(args, state, control)  # a run that goes on after three seconds
    rates = []
    while not control.should_training_stop:
        budget.on_step_begin(args, state, control, optimizer=optimizer)
        rates.append(optimizer.param_groups[1]["lr"])
        clock.now += 1
        budget.on_step_end(args, state, control)
        clock.now += 10
        (budget.on_save if len(rates) % 2 else budget.on_evaluate)(args, state, control)
    assert rates == pytest.approx([7, 6, 5, 4, 3, 2, 1])
    state.log_history.append({"loss": 0.5})
    budget.on_log(args, state, control)
    assert state.log_history[-1]["cpu_seconds"] == 10
    budget.spent = 0.5
    assert budget.rate() == pytest.approx(0.25)
    assert TimeBudget(1, warmup=0).rate() == 1


def test_a_plain_and_an_lsg_model_learn_from_the_same_spans(text: Path, tmp_path: Path, monkeypatch) -> None:
    seen: list[list[list[int]]] = []
    collate = ChunkCollator.__call__
    monkeypatch.setattr(ChunkCollator, "__call__", lambda self, rows: seen.append(rows) or collate(self, rows))
    for name, options in (("plain", ["--max_sequence_length", 100]), ("lsg", LSG)):
        assert run(text, tmp_path / name, *options, "--held_out", 1, "--max_steps", 3) == 0
        results = results_of(tmp_path / name)
        assert results["steps"] == 3 and results["tokens"] > 1000 and len(set(losses(results))) == 3
        assert len(results["evaluations"]) == 1 and results["final"]["validation"]["eval_loss"] > 0
        assert (tmp_path / name / "curves.png").exists()
    half = len(seen) // 2
    assert seen[:half] == seen[half:] and seen[0] != seen[1]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "lsg" / "model", trust_remote_code=True)
    assert type(model).__name__ == "LSGRobertaForMaskedLM" and model.config.block_size == 16
    again = ["--model", tmp_path / "lsg" / "model", "--trust_remote_code", "--max_steps", 1, "--lora", "--lora_rank", 2]
    assert run(text, tmp_path / "again", *again) == 0
    trained = results_of(tmp_path / "again")["model"]
    assert trained["trained_parameters"] < 0.2 * trained["parameters"]


def test_an_interrupted_run_goes_on(text: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Steps, masks and evaluations are those of a run without interruption."""
    options = [*LSG, "--max_steps", 6, "--save_steps", 2, "--held_out", 1]
    assert run(text, tmp_path / "whole", *options) == 0
    compute, calls = MaskedLMTrainer.compute_loss, []

    def interrupt(self, *args, **more):
        calls.append(1)
        if self.state.global_step == 4 and self.model.training:
            raise KeyboardInterrupt
        return compute(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLMTrainer, "compute_loss", interrupt)
        assert run(text, tmp_path / "broken", *options) == 130
    assert calls and not (tmp_path / "broken" / "results.json").exists()
    assert run(text, tmp_path / "broken", *options, "--resume") == 0
    whole, broken = results_of(tmp_path / "whole"), results_of(tmp_path / "broken")
    assert broken["resumed_from"] == "checkpoint-4" and losses(broken) == pytest.approx(losses(whole), abs=1e-6)
    assert len(whole["evaluations"]) == 3 and broken["final"]["validation"] == pytest.approx(
        whole["final"]["validation"]
    )


def test_a_run_ends_with_its_time(text: Path, tmp_path: Path) -> None:
    assert run(text, tmp_path / "out", "--minutes", 0.002, "--num_train_epochs", 0.1) == 0
    results = results_of(tmp_path / "out")
    assert results["cpu_seconds"] >= 0.12 and results["steps"] >= 1
    assert all("loss" in row for row in results["train_loss"])


def test_tokens_near_a_cut() -> None:
    """Chunks of 4 among 10 tokens: 0 to 3, 4 to 7, 6 to 9, each token in that in which it is farthest from the ends."""
    document = MaskedDocument(torch.arange(10), torch.ones(10, dtype=torch.bool), 0, 0, 0)
    assert arms.is_near_cut(document, 4, 1).nonzero()[:, 0].tolist() == [3, 4]
    assert arms.is_near_cut(document, 4, 2).nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    exact = MaskedDocument(torch.arange(12), torch.arange(12) != 4, 0, 0, 0)
    assert arms.is_near_cut(exact, 4, 1).tolist() == [place in (3, 4, 7, 8) for place in range(12) if place != 4]
    assert arms.is_near_cut(exact, 4, 2).sum() == 7 and not arms.is_near_cut(exact, 12, 5).any()


def compare_arguments(text: Path, folder: Path, *options: object) -> list[str]:
    arguments = ["--text", text, "--documents", 1, "--minutes", 1, "--max_steps", 1, "--arms", "local", "mixed"]
    return [str(part) for part in [*arguments, "--work", folder / "work", "--out", folder, *options]]


def interrupt(*_: object, **objects: object) -> None:
    raise KeyboardInterrupt


def test_the_comparison(text: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Interrupted in its first training, done, and made again for other documents."""
    with monkeypatch.context() as patch:
        patch.setattr(TimeBudget, "on_step_begin", interrupt)
        assert compare.main(compare_arguments(text, tmp_path)) == 130
    assert (tmp_path / "work" / "chunks-1" / "settings.json").exists()
    assert compare.main(compare_arguments(text, tmp_path)) == 0
    results = json.loads((tmp_path / "compare.json").read_text())
    [budget] = results["budgets"]
    assert results["training_documents"] == 3 and results["documents"] == 1
    assert [own["steps"] for own in budget["arms"]] == [1, 1, 2]
    readers = [row["reader"] for row in budget["rows"]]
    assert readers[0] == "trained on chunks, read in chunks of 510" and len(readers) == 4 + 2 + 4
    assert budget["rows"][0]["chunks"] == budget["rows"][1]["windows"] == [0, 0]
    for row in budget["rows"]:
        near, total = budget["near_share"], row["chunks"][0]
        assert near * row["near"][0] + (1 - near) * row["far"][0] == pytest.approx(total, abs=2e-3)
        assert row["chunks"][0] - row["windows"][0] == pytest.approx(budget["rows"][1]["chunks"][0], abs=2e-4)
    assert [row["reach"] for row in budget["rows"]] == [None, None, 511, 767, 511, 511, None, None, 511, 767]
    assert (tmp_path / "compare.md").read_text() in capsys.readouterr().out
    monkeypatch.setattr(run_adaptation, "adapt", lambda *_: pytest.fail("trained again"))
    again = ["--name", "compare_other", "--test_text", text / "0.txt"]
    assert compare.main(compare_arguments(text, tmp_path, *again)) == 0
    assert json.loads((tmp_path / "compare_other.json").read_text())["arguments"]["test_text"] == ["0.txt"]
    assert compare.main(compare_arguments(text, tmp_path, "--learning_rate", 1)) == 1
    assert "has learning_rate=0.0005, this command line 1.0" in capsys.readouterr().err


BAD = [
    (["--minutes", "0"], "--minutes 0.0 is not allowed: it must be at least 0.001"),
    (["--span", "4"], "--span 4 is not allowed: it must be at least 8"),
    (["--masked_share", "1"], "--masked_share 1.0 is not allowed"),
    (["--held_out", "4"], "4 documents cannot be held out of 4"),
    (["--min_words", "5000"], "no document with English prose of at least 5000 words"),
    (["--max_sequence_length", "4096"], "reads 512 tokens; take less, as the truncated baseline, or pass --convert"),
    (["--model", str(initial("bart"))], "an encoder is expected, this is an encoder-decoder"),
    (["--model", "HEADLESS"], "not a checkpoint for RobertaForMaskedLM, as it lacks lm_head."),
    (["--model", "HEADLESS", "--convert"], "not a checkpoint for LSGRobertaForMaskedLM, as it lacks lm_head."),
]


@pytest.mark.parametrize(("options", "expected"), BAD, ids=[" ".join(row[0][-2:])[-30:] for row in BAD])
def test_bad_input_ends_in_one_line(options: list[str], expected: str, text: Path, tmp_path: Path, capfd) -> None:
    if "HEADLESS" in options:
        model, tokenizer = load_encoder(str(DEMO), AutoModelForMaskedLM)
        model.base_model.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        options = [str(tmp_path / "base") if option == "HEADLESS" else option for option in options]
    capfd.readouterr()
    assert run(text, tmp_path / "out", *options) == 1
    message = capfd.readouterr().err
    assert expected in message.splitlines()[-1] and "run_adaptation.py: error: " in message, message


def test_bad_input_of_the_comparison(text: Path, tmp_path: Path, capsys) -> None:
    for options, expected in (
        (["--documents", "0"], "--documents 0 is not allowed"),
        (["--work", text / "0.txt"], "0.txt: a folder is expected, this is a file"),
        (["--checkpoint", "./nowhere"], "./nowhere: no such folder"),
        (["--test_text", "nowhere"], "nowhere: no such file or folder"),
    ):
        assert compare.main(compare_arguments(text, tmp_path, *options)) == 1
        assert expected in capsys.readouterr().err.splitlines()[-1]
