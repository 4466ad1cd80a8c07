"""The fine-tuning scripts: whole runs in one process and in two, killed and resumed; what they learn and refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from filelock import FileLock
from helpers import ROOT, initial, load_tokenizer, run_elsewhere
from long_range import matching_documents, write_long_range_task, write_rows

from experiments.classification import run_classification, run_lexglue
from experiments.classification.classifier import classification_metrics
from experiments.finetuning import binary_cross_entropy, cross_entropy, split_batch
from experiments.summarization import run_summarization
from experiments.text_data import InputError, find_labels, load_file, split_cells

SCRIPTS = {
    "classification": ROOT / "experiments" / "classification" / "run_classification.py",
    "lexglue": ROOT / "experiments" / "classification" / "run_lexglue.py",
    "summarization": ROOT / "experiments" / "summarization" / "run_summarization.py",
}
DEMO = ROOT / "experiments" / "demo" / "roberta-demo"
MAIN = {"classification": run_classification.main, "lexglue": run_lexglue.main, "summarization": run_summarization.main}
NO_DROPOUT = '{"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}'  # it differs between one process and two
ROBERTA = ["--model", initial("roberta"), "--convert", "--max_sequence_length", 600]
ROBERTA += ["--block_size", 16, "--sparse_block_size", 16, "--model_kwargs", NO_DROPOUT]
BART = ["--model", initial("bart"), "--convert", "--max_sequence_length", 1100, "--model_kwargs", '{"dropout": 0}']
BART += ["--block_size", 16, "--sparse_block_size", 16]
TRAINING = ["--batch_size", 8, "--learning_rate", 0.01, "--logging_steps", 1, "--num_train_epochs", 2]
SUMMARIES = ["--max_target_length", 30, "--num_beams", 2]
RUNS = {  # name: script, kind of rows, arguments
    "single": ("classification", "single", [*ROBERTA, "--gradient_checkpointing"]),
    "ecthr": ("lexglue", "ecthr", ["--task", "ecthr_a", *ROBERTA]),
    "case_hold": ("lexglue", "case_hold", ["--task", "case_hold", *ROBERTA, "--group_by_length"]),
    "summaries": ("summarization", "summaries", [*BART, *SUMMARIES]),
}


def rows_of(kind: str, count: int, seed: int) -> list[dict]:
    """Rows in the form that a script reads."""
    rows = matching_documents(count, (50, 60), seed)
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    sets = [["3"], ["3", "6"], ["6"], []]
    made = {
        "single": lambda i: rows[i],
        "ecthr": lambda i: {"text": [texts[i][:90], texts[i]], "labels": sets[i % 4]},
        "case_hold": lambda i: {"context": texts[i], "endings": [texts[i - k][:30] for k in range(3)], "label": i % 3},
        "summaries": lambda i: {"text": texts[i], "summary": f"{texts[i][:20]}. {labels[i]}."},
    }
    return [made[kind](i) for i in range(count)]


def write_splits(folder: Path, kind: str) -> list:
    """Write the three splits; give the arguments that name them. Every batch is a full one."""
    arguments = []
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        file = write_rows(folder / f"{kind}_{split}.jsonl", rows_of(kind, count, seed=len(split)))
        arguments += [f"--{split}_file", file]
    return arguments


def command(name: str, folder: Path, processes: int = 1) -> list[str]:
    script, kind, arguments = RUNS[name]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    parts = [*launcher, SCRIPTS[script], *write_splits(folder, kind), *arguments, *TRAINING]
    return [str(part) for part in [*parts, "--output_dir", folder / f"{name}-{processes}"]]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def losses(results: dict) -> list[float]:
    return [row["loss"] for row in results["train_loss"]]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep what `datasets` writes out of the home folder, and its progress bars out of stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


class Runs:
    """The runs that several tests look at, each made once, whichever test process asks first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __getitem__(self, key: tuple[str, int]) -> Path:
        """The output folder of a run, by its name and the number of processes."""
        name, processes = key
        output = self.folder / f"{name}-{processes}"
        with FileLock(f"{output}.lock"):
            if not (output / "model" / "config.json").exists():
                make_run(name, self.folder, processes)
        return output


def make_run(name: str, folder: Path, processes: int) -> None:
    parts = command(name, folder, processes)
    if processes == 1:
        assert MAIN[RUNS[name][0]](parts[2:]) == 0
    else:
        process = subprocess.run(parts, env=environment(folder), capture_output=True, text=True, timeout=600)
        assert process.returncode == 0, process.stderr


@pytest.fixture(scope="session")
def runs(tmp_path_factory, worker_id: str) -> Runs:
    base = tmp_path_factory.getbasetemp()
    return Runs((base if worker_id == "master" else base.parent) / "finetuning")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_model_results_and_curves(name: str, runs: Runs) -> None:
    folder = runs[name, 1]
    results = results_of(folder)
    assert results["steps"] == 6 and results["processes"] == 1 and results["rows_per_step"] == 8
    assert [row["step"] for row in results["train_loss"]] == [1, 2, 3, 4, 5, 6]
    assert len(set(losses(results))) == 6 and all(np.isfinite(losses(results)))
    assert [row["step"] for row in results["evaluations"]] == [3, 6]
    assert results["settings"]["learning_rate"] == 0.01 and results["versions"]["torch"] == torch.__version__
    metrics = (
        ("rouge1", "rouge2", "rougeL", "rougeLsum") if name == "summaries" else ("accuracy", "micro_f1", "macro_f1")
    )
    for prefix, split in (("eval", "validation"), ("test", "test")):
        assert {f"{prefix}_{metric}" for metric in (*metrics, "loss")} <= set(results["final"][split])
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
    assert found["final"] == pytest.approx(expected["final"])


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
    swapped = tokenizer(["no array at all. the value of the index.", ""], padding=True, return_tensors="np")[
        "input_ids"
    ]
    other = compute(SimpleNamespace(predictions=swapped, label_ids=labels))
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


def assert_refused(capfd, script: str, arguments: list, message: str, code: int = 1) -> None:
    """See the exit code, and one line on stderr that holds the message."""
    capfd.readouterr()
    try:
        found = MAIN[script]([str(part) for part in arguments])
    except SystemExit as error:
        found = error.code
    stderr = capfd.readouterr().err
    assert found == code and len(stderr.strip().splitlines()) == 1, stderr
    assert message in stderr and ": error: " in stderr, stderr


GOOD = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]
BAD_ROWS = {  # name: split, its rows or file, what the line says
    "column": ("train", [{"text": "one", "kind": "a"}], "train split: no column 'label'; there are text, kind"),
    "test label": ("test", [GOOD[0], {"text": "x", "label": "c"}], "test split, row 2, column 'label': the label 'c' is"
                   " not one of the training split's: a, b"),
    "validation label": ("validation", [{"text": "x", "label": "c"}], "validation split, row 1, column 'label': the "),
    "no label": ("train", [*GOOD, {"text": "x", "label": None}], "row 3, column 'label': a label (string or whole "
                 "number) is expected, got missing"),
    "list": ("train", [{"text": "x", "label": ["a"]}], "pass --multi_label"),
    "number": ("train", [*GOOD, {"text": 5, "label": "a"}], "train split, row 3, column 'text': a string is expected, "
               "this is a number (5)"),
    "object": ("test", [{"text": {"a": 1}, "label": "a"}], "this is an object"),
    "null": ("test", [GOOD[0], {"text": None, "label": "a"}], "test split, row 2, column 'text': a string is expected"),
    "empty": ("train", "", "train.jsonl: the file is empty"),
    "empty test": ("test", "", "test.jsonl: the file is empty"),
    "no rows": ("train", "\n", "train.jsonl: there are no rows"),
    "not JSON": ("train", '{"text": ', "train.jsonl: not readable as .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows(case: str, tmp_path: Path, capfd) -> None:
    split, bad, message = BAD_ROWS[case]
    arguments = []
    for name in ("train", "validation", "test"):
        rows = bad if name == split else GOOD
        file = tmp_path / f"{name}.jsonl"
        file.write_text(rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)))
        arguments += [f"--{name}_file", file]
    arguments += ["--model", initial("roberta"), "--output_dir", tmp_path / "out"]
    assert_refused(capfd, "classification", arguments, message)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.csv", "text,label\n", "there are no rows"),
        ("x.csv", "text,label\n1,a\n2,b\n", "row 1, column 'text': a string is expected, this is a number (1)"),
        ("x.csv", "text,label\na,b\na,b,c,d\n", "not readable as .csv: Error tokenizing data"),
        ("x.tsv", "text\tlabel\nx\ta\ny\ta\n", "at least 2 labels are expected, there is 1"),
        ("x.txt", "a\tone\ntwo\n", "row 2: 2 fields divided by tabs (label, text) are expected, got 1"),
        ("x.pdf", "x", "the name has to end in one of .csv, .tsv, .json, .jsonl, .txt"),
        (None, None, "no such file"),
    ],
)
def test_bad_files(name: str | None, content: str | None, message: str, tmp_path: Path, capfd) -> None:
    if name is not None:
        (tmp_path / name).write_text(content)
    arguments = ["--train_file", tmp_path / (name or "absent.csv"), "--model", "m", "--output_dir", tmp_path / "out"]
    assert_refused(capfd, "classification", arguments, message)


@pytest.mark.parametrize(
    "script, rows, options, message",
    [
        (
            "lexglue",
            {"text": "x", "labels": ["1"]},
            ["--task", "ecthr_b"],
            "a list of strings is expected, this is a str",
        ),
        ("lexglue", {"text": ["x", None], "labels": ["1"]}, ["--task", "ecthr_b"], "there is missing (null) in it"),
        (
            "lexglue",
            {"text": "x", "labels": "1"},
            ["--task", "unfair_tos"],
            "a list of labels is expected, this is a st",
        ),
        (
            "lexglue",
            {"context": "x", "endings": ["a", "b"], "label": 2},
            ["--task", "case_hold"],
            "0 to 1, is expected",
        ),
        ("lexglue", {"context": "x", "label": 2}, ["--task", "case_hold"], "no column 'endings'"),
        (
            "summarization",
            {"text": "x", "summary": 5},
            [],
            "column 'summary': a string is expected, this is a number (5)",
        ),
        (
            "summarization",
            {"text": "x", "summary": "y"},
            ["--max_target_length", 1200],
            "the decoder has 1024 positions",
        ),
    ],
)
def test_bad_rows_of_the_other_scripts(script, rows, options, message, tmp_path: Path, capfd) -> None:
    file = write_rows(tmp_path / "train.jsonl", [rows])
    model = initial("bart" if script == "summarization" else "roberta")
    arguments = ["--train_file", file, "--model", model, "--output_dir", tmp_path / "out", *options]
    assert_refused(capfd, script, arguments, message)


@pytest.mark.parametrize(
    "options, message, code",
    [
        (["--model_kwargs", "{"], "not a JSON object: '{'", 2),
        (["--learning_rate", "fast"], "invalid float value: 'fast'", 2),
        (["--preset", "imdbb"], "invalid choice: 'imdbb'", 2),
        (["--model_kwargs", '{"hidden_sise": 1}'], "no config field 'hidden_sise'; did you mean hidden_size", 1),
        (["--model_kwargs", '{"block_sise": 1}', "--convert"], "did you mean block_size", 1),
        (["--block_size", 16], "is a plain checkpoint; pass --convert, too", 1),
        (["--convert", "--sparsity_type", "best"], "sparsity_type", 1),
        (["--max_sequence_length", 4096], "reads 512 tokens; take less, as the truncated baseline, or pass --conv", 1),
        (["--batch_size", 6, "--per_device_batch_size", 4], "4 does not divide the 6 rows of a device", 1),
        (["--batch_size", 0], "1 or more is expected, got 0", 1),
        (["--warmup", 100], "a share, at least 0 and below 1, is expected, got 100.0", 1),
        (["--dataset", "imdb"], "exclude each other", 1),
        (["--resume"], "there is no run in", 1),
        (["--model", "/no/such/folder"], "/no/such/folder: no such folder", 1),
    ],
)
def test_bad_options(options: list, message: str, code: int, tmp_path: Path, capfd) -> None:
    file = write_rows(tmp_path / "train.jsonl", GOOD)
    arguments = ["--train_file", file, "--model", initial("roberta"), "--output_dir", tmp_path / "out", *options]
    assert_refused(capfd, "classification", arguments, message, code)


def test_no_data_at_all(tmp_path: Path, capfd) -> None:
    assert_refused(capfd, "classification", ["--model", "m", "--output_dir", tmp_path / "out"], "no training data")


def test_an_earlier_run_is_not_lost_or_mixed(runs: Runs, tmp_path: Path, capfd) -> None:
    folder = runs["single", 1]
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    arguments = command("single", folder.parent)[2:]
    assert_refused(capfd, "classification", arguments, "holds an earlier run; pass --resume or --overwrite")
    wrong = [*arguments, "--resume", "--learning_rate", 1]
    assert_refused(capfd, "classification", wrong, "has learning_rate=0.01, this command line 1.0")
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (tmp_path / "mine").write_text("x")
    wrong = [*arguments, "--overwrite", "--output_dir", tmp_path]
    assert_refused(capfd, "classification", wrong, "not empty, and no run of these scripts")
    assert_refused(capfd, "classification", [*arguments, "--output_dir", tmp_path / "mine"], "this is a file")


def test_an_lsg_folder_is_not_loaded_as_something_else(runs: Runs, tmp_path: Path, capfd) -> None:
    file = write_rows(tmp_path / "train.jsonl", GOOD)
    arguments = ["--train_file", file, "--model", runs["single", 1] / "model", "--output_dir", tmp_path / "out"]
    assert_refused(capfd, "classification", arguments, "pass --trust_remote_code")
    assert_refused(capfd, "classification", [*arguments, "--convert"], "is an LSG checkpoint already")


def test_lsg_learns_what_the_truncated_original_cannot_see(tmp_path: Path) -> None:
    """The label is whether the opening's topic is the closing's, which lies beyond the original's 512 tokens."""
    write_long_range_task(tmp_path)
    arguments = ["--train_file", tmp_path / "train.jsonl", "--test_file", tmp_path / "test.jsonl", "--model", DEMO]
    arguments += ["--batch_size", 8, "--per_device_batch_size", 8, "--per_device_eval_batch_size", 8]
    arguments += ["--learning_rate", 5e-4, "--warmup", 0.1, "--num_train_epochs", 1]
    attention = ["--block_size", 32, "--sparse_block_size", 32, "--sparsity_factor", 4]
    accuracy = {}
    for name, options in (("lsg", ["--convert", "--max_sequence_length", 700, *attention]), ("original", [])):
        output = tmp_path / name
        assert run_classification.main([str(part) for part in [*arguments, *options, "--output_dir", output]]) == 0
        accuracy[name] = results_of(output)["final"]["test"]["test_accuracy"]
    assert accuracy["lsg"] > 0.95
    assert 0.35 < accuracy["original"] < 0.65
