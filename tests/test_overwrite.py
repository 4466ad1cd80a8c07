"""--overwrite replaces only what a conversion wrote, and nothing that was created while one ran is lost."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import assert_nothing_hidden, meanwhile, write_json
from test_command import assert_refused, listing, make_sentence_encoder, run

import lsg.output.renames
from lsg import LSGConverter

LIST = "conversion_files.json"
OVERWRITE = ("--overwrite", "--seed", "7", "--random_global_init")  # what it makes differs from what `run` makes


def without_list(out: Path) -> Path:
    """Make it look like an output of an earlier version."""
    (out / LIST).unlink(missing_ok=True)
    return out


# what happens while a conversion runs


@pytest.mark.parametrize("was_there", [False, True])
def test_a_folder_filled_meanwhile_is_kept(was_there, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    out = tmp_path / "out"
    if was_there:
        out.mkdir()

    def fill() -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("years of work")

    meanwhile(monkeypatch, fill)
    assert run(source, out) == 1
    stderr = capfd.readouterr().err
    assert "out: was filled while the conversion ran; nothing was written" in stderr
    assert listing(out) == {"thesis.txt": b"years of work"}
    assert_nothing_hidden(tmp_path)


@pytest.mark.parametrize("name", ["thesis.txt", "config.json", "new/inner.txt"])
def test_what_was_added_to_a_checkpoint_meanwhile_is_kept(way, name, source, out: Path, capfd, monkeypatch) -> None:
    def change() -> None:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("years of work")

    before = listing(out)
    meanwhile(monkeypatch, change)
    assert run(source, out, *OVERWRITE) == 1
    assert "out: was changed while the conversion ran; nothing was written" in capfd.readouterr().err
    after = listing(out)
    assert after.pop(name) == b"years of work"
    assert {k: v for k, v in after.items() if k != "new"} == {k: v for k, v in before.items() if k != name}
    assert_nothing_hidden(out.parent)


def test_a_checkpoint_that_vanished_meanwhile(way, source: Path, out: Path, capfd, monkeypatch) -> None:
    meanwhile(monkeypatch, lambda: out.rename(out.with_name("moved")))
    assert run(source, out, *OVERWRITE) == 1
    assert "out: was changed while the conversion ran; nothing was written" in capfd.readouterr().err
    assert not out.exists() and (out.with_name("moved") / "config.json").exists()
    assert_nothing_hidden(out.parent)


@pytest.mark.parametrize("args", [(), OVERWRITE])
def test_the_second_of_two_conversions_is_refused(args, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    codes = []
    if args:
        assert run(source, tmp_path / "out") == 0
    meanwhile(monkeypatch, lambda: codes.append(run(source, tmp_path / "out", *args)))
    assert run(source, tmp_path / "out", "--model_kwargs", "{'block_size': 32}", *args[:1]) == 0
    assert codes == [1]
    assert "another conversion to this output is running" in capfd.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["block_size"] == 32
    assert_nothing_hidden(tmp_path)


@pytest.mark.parametrize("args", [(), OVERWRITE])
def test_of_two_conversions_that_did_not_see_each_other_one_fails(
    way, args, source: Path, tmp_path: Path, capfd, monkeypatch
) -> None:
    """Both had checked the output before either began to write."""
    out = tmp_path / "out"
    if args:
        assert run(source, out) == 0
    expected, codes = tmp_path / "expected", []
    assert run(source, expected, "--seed", "9", "--random_global_init") == 0

    def run_another() -> None:
        with monkeypatch.context() as context:
            context.setattr("lsg.output.folder.clean_up_leftovers", lambda output: None)
            codes.append(run(source, out, *args, "--seed", "9", "--random_global_init"))

    meanwhile(monkeypatch, run_another)
    assert run(source, out, *args) == 1
    assert codes == [0]
    assert "while the conversion ran; nothing was written" in capfd.readouterr().err
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert_nothing_hidden(tmp_path)


def test_what_is_created_between_the_two_steps_is_kept(source: Path, out: Path, caplog, monkeypatch) -> None:
    """There is no output for a moment, and another program creates one."""
    before, rename = listing(out), os.rename

    def rename_and_fill(*args) -> None:
        rename(*args)
        monkeypatch.setattr(os, "rename", rename)
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")

    monkeypatch.setattr("lsg.output.renames.exchange_at_once", lambda first, second: False)
    meanwhile(monkeypatch, lambda: monkeypatch.setattr(os, "rename", rename_and_fill))
    assert run(source, out, *OVERWRITE) == 1
    assert listing(out) == {"thesis.txt": b"years of work"}
    assert listing(out.with_name("out.old")) == before
    assert f"what was here before is at {out}.old now" in caplog.text
    assert_nothing_hidden(out.parent)


def test_if_both_are_changed_at_once_both_are_kept(source: Path, out: Path, capfd, monkeypatch) -> None:
    exchange = lsg.output.renames.exchange_at_once

    def exchange_and_change(first: Path, second: Path) -> bool:
        exchanged = exchange(first, second)
        for folder in (first, second):
            (folder / "thesis.txt").write_text("years of work")
        return exchanged

    monkeypatch.setattr("lsg.output.renames.exchange_at_once", exchange_and_change)
    assert run(source, out, *OVERWRITE) == 1
    assert "was changed while it was replaced; both folders are there" in capfd.readouterr().err
    for folder in (out, out.with_name("out.old")):
        assert (folder / "thesis.txt").exists() and (folder / "model.safetensors").exists()
    assert_nothing_hidden(out.parent)


# what --overwrite replaces


@pytest.mark.parametrize("has_list", [True, False])
def test_files_that_no_conversion_wrote_are_named_and_stay(has_list: bool, source: Path, out: Path, capfd) -> None:
    if not has_list:
        without_list(out)
    for name in ("thesis.txt", ".env", "optimizer.pt", "tokenizer/notes.txt", "a.py"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / "empty").mkdir()
    (out / "link").symlink_to(source)
    assert_refused(capfd, source, out, ".env, a.py, empty/, link, optimizer.pt and 2 more", "--overwrite")
    for name in ("thesis.txt", ".env", "a.py", "link"):
        (out / name).unlink()
    shutil.rmtree(out / "tokenizer")
    (out / "empty").rmdir()
    assert_refused(capfd, source, out, "this folder also contains optimizer.pt; move", "--overwrite")
    (out / "optimizer.pt").unlink()
    assert run(source, out, "--overwrite") == 0


@pytest.mark.parametrize("has_list", [True, False])
def test_folders_that_a_modules_json_names_stay(has_list: bool, source: Path, tmp_path: Path, capfd) -> None:
    make_sentence_encoder(source, "1_Pooling")
    out = tmp_path / "out"
    assert run(source, out) == 0
    if not has_list:
        without_list(out)
    assert run(source, out, "--overwrite") == 0
    if not has_list:
        without_list(out)
    capfd.readouterr()
    (out / "1_Pooling" / "precious.txt").write_text("mine")
    assert_refused(capfd, source, out, "this folder also contains 1_Pooling/precious.txt;", "--overwrite")
    (out / "1_Pooling" / "precious.txt").unlink()
    write_json(out / "modules.json", [{"path": "1_Pooling"}, {"path": "data"}])
    (out / "data").mkdir()
    (out / "data" / "precious.txt").write_text("mine")
    assert_refused(capfd, source, out, "this folder also contains data/precious.txt;", "--overwrite")


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "lsg_blocks.py"])
def test_what_the_user_edited_is_kept(way, name: str, source: Path, out: Path, caplog) -> None:
    (out / name).write_bytes(b"my own words")
    made = listing(out)[LIST]
    for _ in range(2):  # what is kept once is kept for good
        assert run(source, out, *OVERWRITE) == 0
        assert (out / f"{name}.old").read_bytes() == b"my own words"
        assert (out / name).read_bytes() != b"my own words"
        assert listing(out)[LIST] != made
    assert f"{name} was edited after its conversion; it is kept as {name}.old" in caplog.text
    (out / name).write_bytes(b"and more")
    assert run(source, out, *OVERWRITE) == 0
    assert (out / f"{name}.old").read_bytes() == b"my own words"
    assert (out / f"{name}.old.2").read_bytes() == b"and more"


def test_what_is_kept_is_copied_where_there_are_no_hard_links(source: Path, out: Path, monkeypatch) -> None:
    def no_links(*args, **kwargs) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (out / "README.md").write_bytes(b"my own words")
    assert run(source, out, *OVERWRITE) == 0
    assert (out / "README.md.old").read_bytes() == b"my own words"


def test_files_that_are_as_they_were_written_are_not_kept(way, source: Path, out: Path) -> None:
    names = set(listing(out))
    assert set(json.loads((out / LIST).read_text())["files"]) == names - {LIST}
    (out / "generation_config.json").unlink(missing_ok=True)
    (out / "tokenizer.json").unlink()
    assert run(source, out, *OVERWRITE) == 0
    assert set(listing(out)) == names


def test_a_listed_file_that_became_a_link_is_kept(source: Path, out: Path) -> None:
    (out / "README.md").rename(out.parent / "elsewhere.md")
    (out / "README.md").symlink_to("../elsewhere.md")
    assert run(source, out, "--overwrite") == 0
    assert (out / "README.md.old").is_symlink() and (out / "README.md.old").resolve() == out.parent / "elsewhere.md"


@pytest.mark.parametrize("content", ["{", "[]", '{"files": []}', '{"files": {"a": 1}, "kept": []}', '{"files": {}}'])
def test_a_damaged_list(content: str, source: Path, out: Path, capfd) -> None:
    (out / LIST).write_text(content)
    assert_refused(capfd, source, out, f"{LIST}: damaged", "--overwrite")


def test_a_list_names_nothing_outside(source: Path, out: Path, capfd) -> None:
    (out.parent / "precious.txt").write_text("mine")
    written = json.loads((out / LIST).read_text())
    names = ["../precious.txt", str(out.parent / "precious.txt")]
    write_json(out / LIST, {"files": {**written["files"], **dict.fromkeys(names, "0")}, "kept": names})
    assert run(source, out, "--overwrite") == 0
    assert (out.parent / "precious.txt").read_text() == "mine"
    assert json.loads((out / LIST).read_text())["kept"] == []


def test_a_checkpoint_that_is_no_conversion_is_refused(source: Path, tmp_path: Path, capfd) -> None:
    """A user's own model, whose files have the same names."""
    mine = Path(shutil.copytree(source, tmp_path / "mine"))
    assert_refused(capfd, source, mine, "this folder is no LSG checkpoint", "--overwrite")
    (mine / "config.json").write_text("{")
    assert_refused(capfd, source, mine, "this folder is no LSG checkpoint", "--overwrite")


def test_what_save_pretrained_wrote_is_replaced(source: Path, tmp_path: Path) -> None:
    for part in LSGConverter(600).convert_from_pretrained(source):
        part.save_pretrained(tmp_path / "out", **({"max_shard_size": "20KB"} if hasattr(part, "config") else {}))
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert run(source, tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
