"""Bad input: every damaged checkpoint and wrong argument ends in one clear line and leaves no files."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_command import assert_refused, rewrite_json, run


def damage_missing(source: Path) -> None:
    shutil.rmtree(source)


def damage_file(source: Path) -> None:
    shutil.rmtree(source)
    source.write_text("x")


def damage_config(text: str):
    return lambda source: (source / "config.json").write_text(text)


def change_config(**fields):
    return lambda source: rewrite_json(source / "config.json", **fields)


def damage_weights(how: str):
    def damage(source: Path) -> None:
        file = source / "model.safetensors"
        content = file.read_bytes()
        if how == "missing":
            file.unlink()
        elif how == "truncated":
            file.write_bytes(content[: len(content) // 2])
        elif how == "empty":
            file.write_bytes(b"")
        elif how == "garbage":
            file.write_bytes(bytes(range(256)) * 40)
        else:
            tensors = load_file(file)
            del tensors["roberta.encoder.layer.1.attention.self.query.weight"]
            save_file(tensors, file, metadata={"format": "pt"})

    return damage


class RunsCode:
    """A pickle that makes a file when it is loaded carelessly."""

    def __reduce__(self):
        return os.system, ("touch RUN_BY_A_PICKLE",)


def damage_pickle(source: Path) -> None:
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"roberta.x": RunsCode()}))


def damage_bin(source: Path) -> None:
    (source / "model.safetensors").unlink()
    torch.save({"roberta.x": RunsCode()}, source / "pytorch_model.bin")


def no_tokenizer(source: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (source / name).unlink(missing_ok=True)


def broken_tokenizer(source: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (source / name).unlink(missing_ok=True)
    (source / "tokenizer.json").write_text('{"version": ')


def tokenizer_code(source: Path) -> None:
    code = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    rewrite_json(source / "tokenizer_config.json", **code)
    (source / "evil.py").write_text("open('RUN_BY_A_TOKENIZER', 'w').close()\nclass Evil: pass\n")
    change_config(auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}, tokenizer_class="Evil")(source)


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_missing, "source: no such folder"),
        (damage_file, "this is a file"),
        (lambda source: (source / "config.json").unlink(), "there is no config.json"),
        (damage_config(""), "not valid JSON"),
        (damage_config("{'a': 1}"), "not valid JSON"),
        (damage_config("\udce4".encode("utf-8", "surrogateescape").decode("latin-1")), "not valid JSON"),
        (damage_config("[]"), "a JSON object is expected, this is a list"),
        (change_config(model_type=None), "has no model_type; known types: albert, bart, barthez, bert,"),
        (change_config(model_type=3), "has no model_type"),
        (
            change_config(model_type="robertas"),
            "see \"Add a model type\" in CONTRIBUTING.md; the nearest name is 'roberta'",
        ),
        (change_config(model_type="rembert"), "does not go through transformers' attention interface, which is not"),
        (change_config(model_type="gpt2"), "unknown model_type 'gpt2'; known types: albert, bart, barthez, bert,"),
        (change_config(architectures="RobertaModel"), "a list of class names is expected"),
        (change_config(hidden_size=24), "weights and config.json disagree"),
        (change_config(vocab_size=291), "lm_head.bias has shape (290,), the config asks for (291,)"),
        (change_config(hidden_size="wide"), "convert_checkpoint.py: error: "),
        (change_config(num_hidden_layers=3), "weights of LSGRobertaForMaskedLM are missing, roberta.encoder.layer.2"),
        (damage_weights("missing"), "the weights cannot be loaded"),
        (damage_weights("truncated"), "the weights cannot be loaded"),
        (damage_weights("empty"), "the weights cannot be loaded"),
        (damage_weights("garbage"), "the weights cannot be loaded"),
        (damage_weights("one"), "roberta.encoder.layer.1.attention.self.query.weight among them"),
        (damage_pickle, "the weights cannot be loaded"),
        (damage_bin, "the weights cannot be loaded"),
        (no_tokenizer, "tokenizer"),
        (broken_tokenizer, "no tokenizer could be loaded"),
    ],
)
def test_a_damaged_checkpoint(damage, message: str, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    damage(source)
    assert_refused(capfd, source, tmp_path / "out", message)
    assert not list(tmp_path.rglob("RUN_BY_*"))


def test_code_in_a_checkpoint_is_not_run(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer_code(source)
    run(source, tmp_path / "out")
    assert not list(tmp_path.rglob("RUN_BY_*"))


@pytest.mark.parametrize(
    "args, message, code",
    [
        (["--architecture", "RobertaForSummarization"], "RobertaForMaskedLM, RobertaForMultipleChoice", 1),
        (["--architecture", "BertForMaskedLM"], "is not one of model type 'roberta'", 1),
        (["--max_sequence_length", "0"], "max_sequence_length=0 is not allowed", 1),
        (["--max_sequence_length", "-4096"], "max_sequence_length=-4096 is not allowed", 1),
        (["--max_sequence_length", "many"], "invalid int value: 'many'", 2),
        (["--max_sequence_length", "511"], "max_sequence_length=511 is below the 512 tokens", 1),
        (["--model_kwargs", "block_size=3"], "a JSON object", 2),
        (["--model_kwargs", "[1]"], "a JSON object is expected", 2),
        (["--model_kwargs", "{'block_size': 1"], "not a JSON object", 2),
        (["--model_kwargs", "{'block_size': __import__('os').system('touch RUN_BY_KWARGS')}"], "not a JSON object", 2),
        (["--model_kwargs", "{'block_sise': 32}"], "unknown field 'block_sise'; did you mean block_size", 1),
        (["--model_kwargs", "{'max_position_embeddings': 32}"], "unknown field 'max_position_embeddings'", 1),
        (["--model_kwargs", "{'token': 'x'}"], "'token' is no field of the config", 1),
        (["--model_kwargs", "{'sparsity_type': 'best'}"], "choose one of norm, pooling", 1),
        (["--model_kwargs", "{'block_size': 0}"], "block_size=0", 1),
        (["--model_kwargs", "{'block_size': '32'}"], "block_size='32'", 1),
        (["--model_kwargs", "{'sparsity_factor': 3}"], "must divide block_size (128)", 1),
        (["--model_kwargs", "{'sparse_block_size': 96}"], "a multiple or a divisor of block_size (128)", 1),
        (["--model_kwargs", "{'sparse_block_size': -1}"], "sparse_block_size=-1", 1),
        (["--model_kwargs", "{'num_global_tokens': 0}"], "num_global_tokens=0", 1),
        (["--model_kwargs", "{'num_global_tokens': 513}"], "num_global_tokens=513", 1),
        (["--model_kwargs", "{'adaptive': 'yes'}"], "adaptive='yes'", 1),
        (["--model_kwargs", "{'lsh_num_pre_rounds': -1}"], "lsh_num_pre_rounds=-1", 1),
        (["--global_positional_stride", "0"], "global_positional_stride=0", 1),
        (["--global_positional_stride", "63"], "must divide 512", 1),
        (["--keep_first_global_token"], "keep_first_global_token is for LSG checkpoints", 1),
        (["--resize_lsg", "True"], "resize_lsg is for LSG checkpoints", 1),
        (["--seed", "-1"], "seed=-1", 1),
        (["--run_test", "maybe"], "True or False is expected, got 'maybe'", 2),
        (["--dtype", "int8"], "invalid choice: 'int8'", 2),
        (["--modelname", "x"], "unrecognized arguments", 2),
    ],
)
def test_wrong_arguments(args: list, message: str, code: int, source: Path, tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(capfd, source, tmp_path / "out", message, *args, code=code)
    assert not list(tmp_path.rglob("RUN_BY_*"))
