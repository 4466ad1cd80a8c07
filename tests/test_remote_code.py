"""The output folder alone is enough: copied elsewhere it loads, trains, saves and loads again, without our package."""

import copy
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import (
    ALIKE,
    NEW_INTERPRETER,
    ROOT,
    TYPES,
    initial,
    load_tokenizer,
    make_inputs,
    run_elsewhere,
    write_json,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, Trainer, TrainingArguments
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from lsg import LSGConverter
from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_attention import ATTENTION_NAME

LOAD = """
import sys, torch, transformers
from safetensors.torch import load_file, save_file
folder, auto_class, expected_class, inputs, outputs = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__name__ == expected_class, type(model)
assert type(model.config).__name__.startswith("LSG") and model.config.auto_map["AutoModel"]
with torch.no_grad():
    save_file({"first": model(**load_file(inputs)).to_tuple()[0].contiguous()}, outputs)
"""


LOUD = """
def loud(attend):
    return lambda *args, **kwargs: (2 * attend(*args, **kwargs)[0], None)


@loud
"""
DISTINCT = [t for t in TYPES if t not in ALIKE]
CLASSIFIERS = [t for t in DISTINCT if "AutoModelForSequenceClassification" in MODEL_TYPES[t].auto_classes]


def convert(model_type: str, folder: Path, **fields) -> Path:
    for part in LSGConverter(1100).convert_from_pretrained(initial(model_type), block_size=16, **fields):
        part.save_pretrained(folder)
    return folder


def outputs_elsewhere(
    folder: Path, scratch: Path, auto_class: str, expected_class: str, inputs: dict, fork: bool = True
) -> torch.Tensor:
    """Copy a folder, load it there without the repository, and give the first output."""
    elsewhere = Path(shutil.copytree(folder, scratch / "elsewhere"))
    save_file(inputs, scratch / "inputs.safetensors")
    files = (scratch / "inputs.safetensors", scratch / "outputs.safetensors")
    process = run_elsewhere(LOAD, scratch, elsewhere, auto_class, expected_class, *files, fork=fork)
    assert process.returncode == 0, process.stderr
    return load_file(files[1])["first"]


@pytest.mark.parametrize("model_type", TYPES)
def test_a_modeling_file_names_every_file_it_needs(model_type: str) -> None:
    """Some 5.x versions copy, out of a local folder, only the files that the modeling file itself imports."""
    file = sys.modules[MODEL_TYPES[model_type].config_class.__module__].__file__  # BARThez' is mBART's
    needed = {Path(name).stem for name in get_relative_import_files(file)}
    assert needed == set(get_relative_imports(file))
    assert needed | {"lsg_rotary", "lsg_seq2seq"} == {f.stem for f in (ROOT / "lsg" / "modeling").glob("lsg_*.py")}


@pytest.mark.parametrize("model_type", DISTINCT)
def test_the_folder_loads_elsewhere_with_the_same_outputs(model_type: str, tmp_path: Path) -> None:
    folder = convert(model_type, tmp_path / "out")
    classes = MODEL_TYPES[model_type].auto_classes
    auto_class = next(c for c in ("AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModel") if c in classes)
    model_class = classes[auto_class]
    model = model_class.from_pretrained(folder).eval()
    architecture = model_class.__name__.removeprefix("LSG")
    inputs = make_inputs(load_tokenizer(model_type), model.config.vocab_size, [70, 40], architecture)
    fork = model_type not in NEW_INTERPRETER
    found = outputs_elsewhere(folder, tmp_path, auto_class, model_class.__name__, inputs, fork)
    with torch.no_grad():
        assert torch.equal(found, model(**inputs)[0])


def test_each_checkpoint_runs_its_own_code(tmp_path: Path) -> None:
    """Two of one type and one of another in one process, one with code of its own; whichever was loaded last."""
    folders = [
        convert(t, tmp_path / f"lsg-{i}-{t}", sparse_block_size=16) for i, t in enumerate(("bert", "bert", "bart"))
    ]
    file = folders[1] / "lsg_attention.py"
    code = file.read_text(encoding="utf-8")
    file.write_text(code.replace("def lsg_attention_forward(", LOUD + "def lsg_attention_forward("), encoding="utf-8")
    inputs = make_inputs(load_tokenizer("bert"), 100, [70, 40])
    models, before = [], []
    for folder in folders:
        models.append(AutoModel.from_pretrained(folder, trust_remote_code=True).eval())
        before.append(models[-1](**inputs)[0])
    names = [getattr(model, "encoder", model).config._attn_implementation for model in models]
    assert len({*names, ATTENTION_NAME}) == 4 and all(name.startswith("lsg_") for name in names)
    assert not torch.allclose(before[0], before[1], atol=1e-3)
    for model, output, name, folder in zip(models, before, names, folders, strict=True):
        with torch.no_grad():
            for same in (model, copy.deepcopy(model)):
                same.set_attn_implementation("sdpa")
                assert torch.equal(same(**inputs)[0], output)
        model.save_pretrained(folder.parent / "saved")
        assert name not in (folder.parent / "saved" / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("implementation", [None, "lsg", "lsg_0", "sdpa"])
@pytest.mark.parametrize("model_type", ["bert", "bart"])
def test_names_of_our_attention_are_known(model_type: str, implementation: str | None, tmp_path: Path, caplog) -> None:
    """Where they are asked for, and in a config.json: of an older version, or of another copy of the code."""
    folder = convert(model_type, tmp_path / "out")
    expected = {"bert": {ATTENTION_NAME}, "bart": {ATTENTION_NAME, "sdpa"}}[model_type]
    model_class = MODEL_TYPES[model_type].auto_classes["AutoModel"]
    for key in (None, "_attn_implementation", "attn_implementation"):
        if key is not None:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            write_json(folder / "config.json", {**config, key: implementation})
        options = {"attn_implementation": implementation} if key is None else {}
        model = model_class.from_pretrained(folder, **options)
        assert {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")} == expected
    assert "is not used" not in caplog.text


@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_what_trainer_saves_loads_elsewhere(model_type: str, tmp_path: Path) -> None:
    """Fine-tune the converted folder a few steps, through the AutoClass; what Trainer saves is complete."""
    folder = convert(model_type, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True, num_labels=3)
    tokenizer = load_tokenizer(model_type)
    inputs = make_inputs(tokenizer, model.config.vocab_size, [60] * 8)
    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in inputs["input_ids"]]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=4,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        gradient_checkpointing=True,
        save_strategy="no",
        learning_rate=1e-2,
    )
    globals_ = next(p for name, p in model.named_parameters() if "global_embeddings" in name)
    before = globals_.detach().clone()
    dataset = [{**row, "labels": i % 3} for i, row in enumerate(rows)]
    trainer = Trainer(model, arguments, train_dataset=dataset, processing_class=tokenizer)
    assert trainer.train().global_step == 3
    assert not torch.equal(before, globals_)
    trainer.save_model(tmp_path / "trained")
    class_name = type(model).__name__
    probe = {name: x[:2] for name, x in inputs.items()}
    found = outputs_elsewhere(tmp_path / "trained", tmp_path, "AutoModelForSequenceClassification", class_name, probe)
    with torch.no_grad():
        assert found.shape == (2, 3)
        assert (found - model.eval()(**probe).logits).abs().max().item() < 1e-6


def test_models_of_a_user_are_found_by_their_config(monkeypatch) -> None:
    """Also those that are registered, or named as no auto class is; not helpers with another config."""
    bert = MODEL_TYPES["bert"]
    config_class, classes = type("Config", (bert.config_class,), {}), bert.auto_classes
    own = {"config_class": config_class}
    names = {
        "MyModel": (classes["AutoModel"], own),
        "HelperModel": (classes["AutoModel"], {}),
        "DocumentClassifier": (classes["AutoModelForSequenceClassification"], own),
        "MyForDocumentRanking": (classes["AutoModelForMultipleChoice"], own),
        "Reader": (classes["AutoModel"], own | {"_auto_class": "AutoModelForQuestionAnswering"}),
    }
    module = ModuleType("user_code")
    vars(module).update({name: type(name, (base,), fields) for name, (base, fields) in names.items()})
    monkeypatch.setitem(sys.modules, "user_code", module)
    config_class.__module__ = "user_code"
    assert config_class().to_dict()["auto_map"] == {
        "AutoConfig": "user_code.Config",
        "AutoModel": "user_code.MyModel",
        "AutoModelForMultipleChoice": "user_code.MyForDocumentRanking",
        "AutoModelForQuestionAnswering": "user_code.Reader",
        "AutoModelForSequenceClassification": "user_code.DocumentClassifier",
    }
