"""--dry_run: it describes what the conversion then writes, and changes nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import TYPES, initial
from safetensors import safe_open
from test_command import LENGTH, assert_refused, listing, run

import lsg.loading
from convert_checkpoint import main


def dry_run(capfd, source: Path, output: Path, *args: str) -> tuple[str, dict]:
    """Run it; return its text and the config in it."""
    assert main(["--initial_model", str(source), "--model_name", str(output), "--dry_run", *args]) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    text, config = stdout.split("config.json: ", 1)
    return text, json.loads(config)


def tensor_bytes(file: Path) -> int:
    """The bytes of all tensors of a file."""
    with safe_open(file, framework="pt") as tensors:
        return sum(tensors.get_tensor(name).nbytes for name in tensors.keys())  # noqa: SIM118


def numbers(text: str) -> list[int]:
    """Whole numbers with commas in them, or without."""
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


@pytest.mark.parametrize("model_type", TYPES)
def test_it_describes_what_is_written_then(model_type: str, tmp_path: Path, capfd) -> None:
    args = ["--max_sequence_length", "1100", "--model_kwargs", "{'block_size': 64}"]
    text, config = dry_run(capfd, initial(model_type), tmp_path / "out", *args)
    assert list(tmp_path.iterdir()) == []
    names = ["--initial_model", str(initial(model_type)), "--model_name", str(tmp_path / "out")]
    assert main([*names, *args]) == 0
    assert capfd.readouterr().out.split("\n")[0].split(",")[:2] == text.replace("Would make", "Made").split(",")[:2]
    assert config == json.loads((tmp_path / "out" / "config.json").read_text())
    sizes = numbers(text.split("Weights: ")[1].split("\n")[0].replace("float32", ""))
    assert sizes[0] == tensor_bytes(tmp_path / "out" / "model.safetensors")
    assert sizes[-1] == tensor_bytes(initial(model_type) / "model.safetensors")
    hidden = config.get("hidden_size") or config.get("d_model") or config["dim"]
    assert sizes[2] == 512 * (config.get("embedding_size") or hidden) * 4


def test_no_weights_are_loaded_and_half_the_size_is_described(source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(lsg.loading, "load_model", lambda *args: pytest.fail("weights are loaded"))
    whole, _ = dry_run(capfd, source, tmp_path / "out", *LENGTH)
    half, config = dry_run(capfd, source, tmp_path / "out", *LENGTH, "--dtype", "bfloat16")
    assert config["dtype"] == "bfloat16" and "in bfloat16" in half
    sizes = [numbers(text.split("Weights: ")[1].split(" bytes")[0])[0] for text in (whole, half)]
    assert sizes[0] == 2 * sizes[1]


def test_nothing_is_changed(source: Path, out: Path, capfd) -> None:
    """Nor the leftovers of a killed conversion."""
    (out / "README.md").write_text("mine")
    (out.parent / ".out.0123abcd.new").mkdir()
    (out.parent / ".out.0123abcd.new" / "half").write_text("x")
    before = listing(out.parent)
    text, _ = dry_run(capfd, source, out, *LENGTH, "--overwrite", "--run_test")
    assert "Would replace an earlier conversion; kept: README.md as README.md.old" in text
    assert "The self test would be run" in text
    assert listing(out.parent) == before


def test_weights_without_a_header_to_read(source: Path, tmp_path: Path, capfd) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    text, _ = dry_run(capfd, source, tmp_path / "out", *LENGTH)
    assert "the checkpoint's weights: not known (there is neither model.safetensors nor" in text


def test_several_weight_files(source: Path, tmp_path: Path, capfd) -> None:
    from transformers import RobertaForMaskedLM

    whole, _ = dry_run(capfd, source, tmp_path / "out", *LENGTH)
    model = RobertaForMaskedLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shutil.copytree(tmp_path / "shards", source, dirs_exist_ok=True)
    assert len(list(source.glob("model-*.safetensors"))) > 1
    capfd.readouterr()
    parts, _ = dry_run(capfd, source, tmp_path / "out", *LENGTH)
    assert parts.split("Weights: ")[1] == whole.split("Weights: ")[1]


@pytest.mark.parametrize(
    "args, message",
    [
        (["--model_kwargs", "{'sparsity_factor': 3}"], "must divide block_size"),
        (["--max_sequence_length", "511"], "is below the 512 tokens"),
        (["--report", "report.json"], "dry_run writes nothing, so there is nothing to report"),
        (["--resize_lsg"], "resize_lsg is for LSG checkpoints"),
    ],
)
def test_what_would_be_refused(args: list, message: str, source: Path, tmp_path: Path, capfd) -> None:
    assert_refused(capfd, source, tmp_path / "out", message, "--dry_run", *args)


def test_it_works_from_a_file_of_arguments(source: Path, tmp_path: Path, capfd) -> None:
    file = tmp_path / "arguments.json"
    file.write_text(json.dumps({"initial_model": str(source), "model_name": str(tmp_path / "out"), "dry_run": True}))
    assert main([str(file)]) == 0
    assert "Would make LSGRobertaForMaskedLM" in capfd.readouterr().out
    assert run(source, tmp_path / "out") == 0
