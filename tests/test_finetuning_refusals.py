"""Bad input of the fine-tuning scripts ends in one clear line, and no earlier run is lost."""

import json
from pathlib import Path

import pytest
from finetuning_runs import MAIN, Runs, command, own_cache, shared_runs  # noqa: F401 (the last two are fixtures)
from helpers import initial
from long_range import write_rows


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
        ("x.txt", "a\tone\ntwo\n", "row 2: 2 fields separated by tabs (label, text) are expected, got 1"),
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
    "options, rows, message",
    [
        ("lexglue --task ecthr_b", {"text": "x", "labels": ["1"]}, "a list of strings is expected, this is a str"),
        ("lexglue --task ecthr_b", {"text": ["x", None], "labels": ["1"]}, "there is missing (null) in it"),
        ("lexglue --task unfair_tos", {"text": "x", "labels": "1"}, "a list of labels is expected, this is a st"),
        ("lexglue --task case_hold", {"context": "x", "endings": ["a", "b"], "label": 2}, "0 to 1, is expected"),
        ("lexglue --task case_hold", {"context": "x", "label": 2}, "no column 'endings'"),
        ("summarization", {"text": "x", "summary": 5}, "column 'summary': a string is expected, this is a number (5)"),
        ("summarization --max_target_length 1200", {"text": "x", "summary": "y"}, "the decoder has 1024 positions"),
    ],
)
def test_bad_rows_of_the_other_scripts(options, rows, message, tmp_path: Path, capfd) -> None:
    script, *options = options.split()
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
        (["--model_kwargs", '{"architecture": "x"}', "--convert"], "model_kwargs: unknown field 'architecture'", 1),
        (["--model_kwargs", '{"revision": "x"}', "--convert"], "model_kwargs: unknown field 'revision'", 1),
        (["--block_size", 16], "is a plain checkpoint; pass --convert, too", 1),
        (["--convert", "--sparsity_type", "best"], "sparsity_type", 1),
        (["--max_sequence_length", 4096], "reads 512 tokens; take less, as the truncated baseline, or pass --conv", 1),
        (["--batch_size", 6, "--per_device_batch_size", 4], "4 does not divide the 6 rows of a device", 1),
        (["--batch_size", 0], "--batch_size 0 is not allowed: it must be at least 1", 1),
        (["--warmup", 100], "--warmup 100.0 is not allowed: it must be at least 0 and below 1", 1),
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
    assert_refused(capfd, "classification", wrong, "not empty, and not the output of these scripts")
    assert_refused(capfd, "classification", [*arguments, "--output_dir", tmp_path / "mine"], "this is a file")


def test_an_lsg_folder_is_not_loaded_as_something_else(runs: Runs, tmp_path: Path, capfd) -> None:
    file = write_rows(tmp_path / "train.jsonl", GOOD)
    arguments = ["--train_file", file, "--model", runs["single", 1] / "model", "--output_dir", tmp_path / "out"]
    assert_refused(capfd, "classification", arguments, "pass --trust_remote_code")
    assert_refused(capfd, "classification", [*arguments, "--convert"], "is an LSG checkpoint already")
