"""The fine-tuning scripts: whole runs in one process and in two, killed and resumed; what they learn and measure."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from finetuning_runs import (
    DEMO,
    ROBERTA,
    RUNS,
    SCRIPTS,
    TRAINING,
    Runs,
    environment,
    losses,
    own_cache,  # noqa: F401 (a fixture)
    results_of,
    shared_runs,  # noqa: F401 (a fixture)
    write_splits,
)
from helpers import load_tokenizer, run_elsewhere
from long_range import write_long_range_task

from experiments.classification import run_classification
from experiments.classification.classifier import classification_metrics
from experiments.common.data import load_file
from experiments.common.errors import InputError
from experiments.common.finetuning import binary_cross_entropy, cross_entropy, split_batch
from experiments.common.labels import find_labels, split_cells
from experiments.summarization import run_summarization


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_model_results_and_curves(name: str, runs: Runs) -> None:
    folder = runs[name, 1]
    results = results_of(folder)
    assert results["steps"] == 6 and results["processes"] == 1 and results["rows_per_step"] == 8
    assert [row["step"] for row in results["train_loss"]] == [1, 2, 3, 4, 5, 6]
    assert len(set(losses(results))) == 6 and all(np.isfinite(losses(results)))
    assert [row["step"] for row in results["evaluations"]] == [3, 6]
    assert results["settings"]["learning_rate"] == 0.01 and results["versions"]["torch"] == torch.__version__
    metrics = "rouge1 rouge2 rougeL rougeLsum" if name == "summaries" else "accuracy micro_f1 macro_f1"
    for prefix, split in (("eval", "validation"), ("test", "test")):
        assert {f"{prefix}_{metric}" for metric in (*metrics.split(), "loss")} <= set(results["final"][split])
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "model" / "config.json").exists() and (folder / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize("name", ["single", "ecthr", "summaries"])
def test_two_processes_learn_the_same(name: str, runs: Runs) -> None:
    one, two = results_of(runs[name, 1]), results_of(runs[name, 2])
    assert two["processes"] == 2 and two["rows_per_step"] == 8
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert max(losses(one)) - min(losses(one)) > 1e-3  # there is something to compare
    for metric, value in one["final"]["test"].items():
        assert two["final"]["test"][metric] == pytest.approx(value, abs=1e-3), metric


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """With dropout, so that the random numbers have to go on, too."""
    arguments = [*write_splits(tmp_path, "single"), *ROBERTA[:-2], *TRAINING, "--num_train_epochs", 8]
    arguments = [str(part) for part in [*arguments, "--save_steps", 4, "--output_dir"]]
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    script = [sys.executable, str(SCRIPTS["classification"])]
    process = subprocess.Popen([*script, *arguments, str(killed)], env=environment(tmp_path), stderr=subprocess.DEVNULL)
    while not (killed / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists()
    half = killed / "checkpoint-99"  # one that was being written
    half.mkdir()
    assert run_classification.main([*arguments, str(killed), "--resume"]) == 0
    assert run_classification.main([*arguments, str(unbroken)]) == 0
    found, expected = results_of(killed), results_of(unbroken)
    assert found["resumed_from"].startswith("checkpoint-") and found["resumed_from"] != "checkpoint-99"
    assert len(losses(expected)) == 24 and losses(found) == pytest.approx(losses(expected), abs=1e-6)
    for split in ("validation", "test"):
        assert found["final"][split] == pytest.approx(expected["final"][split])


LOAD = """
import sys, json, transformers
model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
    sys.argv[1], trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
assert type(model).__name__ == "LSGRobertaForSequenceClassification", type(model)
print(json.dumps({"sparsity_type": model.config.sparsity_type, "labels": model.config.id2label}))
"""


def test_an_lsg_folder_with_adapters_and_another_attention(runs: Runs, tmp_path: Path) -> None:
    arguments = [*write_splits(tmp_path, "single"), "--model", runs["single", 1] / "model", "--trust_remote_code"]
    arguments += ["--model_kwargs", '{"sparsity_type": "lsh"}', "--lora", "--lora_rank", 2, *TRAINING]
    arguments += ["--output_dir", tmp_path / "out", "--max_steps", 2]
    assert run_classification.main([str(part) for part in arguments]) == 0
    results = results_of(tmp_path / "out")
    assert results["model"]["trained_parameters"] < 0.2 * results["model"]["parameters"]
    process = run_elsewhere(LOAD, tmp_path, tmp_path / "out" / "model")
    assert process.returncode == 0, process.stderr
    expected = {"sparsity_type": "lsh", "labels": {"0": "different", "1": "same"}}
    assert json.loads(process.stdout.splitlines()[-1]) == expected


def test_a_preset_gives_way_to_options_and_files() -> None:
    parse = lambda *argv: run_classification.parse_options(  # noqa: E731
        run_classification.make_options(), run_classification.PRESETS, ["--model", "m", "--output_dir", "o", *argv]
    )
    args = parse("--preset", "arxiv", "--learning_rate", "1e-4")
    assert (args.learning_rate, args.batch_size, args.max_sequence_length) == (1e-4, 32, 4096)
    assert args.dataset == "ccdv/arxiv-classification" and args.preset_attention["sparsity_factor"] == 4
    args = parse("--preset", "imdb", "--train_file", "x.csv")
    assert args.dataset is None and args.num_train_epochs == 3
    assert parse().preset_attention == {} and parse().max_sequence_length is None


def test_every_file_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"label": "a", "text": "one, two"}, {"label": "NA", "text": "three"}]
    contents = {
        "x.csv": 'label,text\na,"one, two"\nNA,three\n',
        "x.tsv": "label\ttext\na\tone, two\nNA\tthree\n",
        "x.json": json.dumps(rows),
        "x.jsonl": "\n".join(map(json.dumps, rows)),
        "x.txt": "a\tone, two\nNA\tthree\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert load_file(tmp_path / name, ("label", "text")).to_list() == rows, name


def test_labels_in_a_cell_and_their_order() -> None:
    splits = {"train": Dataset.from_dict({"label": ["10; 9", "", "b"]}), "test": Dataset.from_dict({"label": ["b;10"]})}
    splits = split_cells(splits, "label", ";")
    labels = find_labels(splits, "label", is_multi=True)
    assert labels.names == ("9", "10", "b") and labels.encode(["b", "9"]) == [1, 0, 1] and labels.encode([]) == [0] * 3
    numbers = Features({"label": ClassLabel(names=["no", "yes"])})
    splits = {"train": Dataset.from_dict({"label": [1, 1]}, features=numbers)}
    labels = find_labels(splits, "label", is_multi=False)
    assert labels.names == ("no", "yes") and labels.encode(1) == 1


def test_metrics() -> None:
    """LexGLUE counts "none of the labels" as one more class."""
    logits = np.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    truth = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    prediction = SimpleNamespace(predictions=logits, label_ids=truth)
    plain = classification_metrics(is_multi=True)(prediction)
    assert plain == pytest.approx({"accuracy": 2 / 4, "micro_f1": 4 / 6, "macro_f1": (1 + 0) / 2})
    lexglue = classification_metrics(is_multi=True, counts_no_label=True)(prediction)
    assert lexglue == pytest.approx({"accuracy": 2 / 4, "micro_f1": 6 / 9, "macro_f1": (1 + 0 + 2 / 3) / 3})
    prediction = SimpleNamespace(predictions=logits, label_ids=np.array([0, 1, 1, 1]))
    single = classification_metrics(is_multi=False)(prediction)  # predicted: 0, 0, 0, 1
    assert single == pytest.approx({"accuracy": 2 / 4, "micro_f1": 2 / 4, "macro_f1": (2 / 4 + 2 / 4) / 2})


def test_rouge() -> None:
    tokenizer = load_tokenizer("bart")
    texts = ["the value of the index. no array at all.", "the function returns the object."]
    ids = tokenizer(texts, padding=True, return_tensors="np")["input_ids"]
    labels = np.where(ids == tokenizer.pad_token_id, -100, ids)
    compute = run_summarization.rouge_metrics(tokenizer)
    same = compute(SimpleNamespace(predictions=labels, label_ids=labels))
    assert [same[name] for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")] == [100] * 4
    swapped = tokenizer(["no array at all. the value of the index.", ""], padding=True, return_tensors="np")
    other = compute(SimpleNamespace(predictions=swapped["input_ids"], label_ids=labels))
    assert other["rouge1"] == other["rougeLsum"] == 50 and other["rougeL"] == pytest.approx(100 * 5 / 9 / 2)


def test_losses_are_means_over_the_whole_step() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 3), torch.tensor([[0, 1, 2, -100, -100]] * 4)
    whole = cross_entropy(SimpleNamespace(logits=logits), labels)
    parts = [cross_entropy(SimpleNamespace(logits=logits[i : i + 2]), labels[i : i + 2], 12) for i in (0, 2)]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-6)
    assert whole.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item(), abs=1e-6
    )
    logits, labels = torch.randn(4, 3), torch.randint(2, (4, 3)).float()
    parts = [binary_cross_entropy(SimpleNamespace(logits=logits[i : i + 2]), labels[i : i + 2], 12) for i in (0, 2)]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item()
    assert sum(parts).item() == pytest.approx(expected, abs=1e-6)


def test_the_batch_is_divided() -> None:
    assert split_batch(32, None, 1) == (4, 8) and split_batch(32, 8, 2) == (8, 2) and split_batch(6, None, 2) == (3, 1)
    for wrong in ((32, None, 3), (32, 5, 1)):
        with pytest.raises(InputError, match="divide"):
            split_batch(*wrong)


def test_lsg_learns_what_the_truncated_original_cannot_see(tmp_path: Path) -> None:
    """The label is whether the opening's topic is the closing's, which lies beyond the original's 512 tokens."""
    write_long_range_task(tmp_path, train=400, longest=200, test=100)
    arguments = ["--train_file", tmp_path / "train.jsonl", "--test_file", tmp_path / "test.jsonl", "--model", DEMO]
    arguments += ["--batch_size", 8, "--per_device_batch_size", 8, "--per_device_eval_batch_size", 8]
    arguments += ["--learning_rate", 1e-3, "--warmup", 0.1, "--num_train_epochs", 1]
    attention = ["--block_size", 32, "--sparse_block_size", 32, "--sparsity_factor", 4]
    accuracy = {}
    for name, options in (("lsg", ["--convert", "--max_sequence_length", 700, *attention]), ("original", [])):
        output = tmp_path / name
        assert run_classification.main([str(part) for part in [*arguments, *options, "--output_dir", output]]) == 0
        accuracy[name] = results_of(output)["final"]["test"]["test_accuracy"]
    assert accuracy["lsg"] > 0.95
    assert 0.35 < accuracy["original"] < 0.65
