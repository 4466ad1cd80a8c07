"""Ways to load and run a converted folder: a Hub cache, weights on disk, int8, compiled, traced, pickled."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import initial, load_tokenizer, make_inputs
from transformers import AutoModelForMaskedLM, AutoTokenizer, TorchAoConfig, pipeline

from lsg import LSGConverter
from lsg.modeling.modeling_lsg_bert import LSGBertForMaskedLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("deployment") / "lsg-bert"
    for part in LSGConverter(1100).convert_from_pretrained(initial("bert"), block_size=16, sparse_block_size=16):
        part.save_pretrained(made)
    return made


def load(folder: Path | str, **options) -> torch.nn.Module:
    return AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


def logits(model: Callable) -> torch.Tensor:
    """Those of the real tokens of two long rows."""
    inputs = make_inputs(load_tokenizer("bert"), 120, [200, 90])
    with torch.no_grad():
        outputs = model(inputs["input_ids"], inputs["attention_mask"])
    return (outputs[0] if isinstance(outputs, tuple) else outputs.logits)[inputs["attention_mask"].bool()]


def test_from_a_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    """By name, as after a download; the code comes out of the snapshot."""
    revision = "ab" * 20
    repository = tmp_path / "models--someone--lsg-bert"
    shutil.copytree(folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    model = load("someone/lsg-bert", cache_dir=tmp_path)
    assert revision in type(model).__module__ and torch.equal(logits(model), logits(load(folder)))
    tokenizer = AutoTokenizer.from_pretrained("someone/lsg-bert", cache_dir=tmp_path)
    assert tokenizer.model_max_length == 1100


def test_weights_on_disk(folder: Path, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    parts = {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "cpu"}
    expected = logits(load(folder))
    assert torch.equal(logits(load(folder, device_map=parts, offload_folder=tmp_path / "parts")), expected)
    whole = load(folder)
    accelerate.disk_offload(whole, tmp_path / "whole")
    assert torch.equal(logits(whole), expected)


@pytest.mark.filterwarnings("ignore")
def test_int8_of_torch(folder: Path) -> None:
    model = torch.ao.quantization.quantize_dynamic(load(folder), {torch.nn.Linear}, dtype=torch.qint8)
    expected = logits(load(folder))
    assert 0 < (logits(model) - expected).abs().max() < 0.1 * expected.abs().max()


def test_int8_of_torchao(folder: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    expected = logits(load(folder))
    config = quantization.Int8WeightOnlyConfig()
    by_hand = load(folder)
    quantization.quantize_(by_hand, config)
    for model in (by_hand, load(folder, quantization_config=TorchAoConfig(config))):
        assert 0 < (logits(model) - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
def test_traced(folder: Path) -> None:
    model = load(folder, return_dict=False)
    inputs = make_inputs(load_tokenizer("bert"), 120, [200, 90])
    given = inputs["input_ids"], inputs["attention_mask"]
    traced = torch.jit.trace(model, given, strict=False, check_trace=False)  # its check looks at padding, too
    assert (logits(traced) - logits(model)).abs().max() < 1e-5


def test_pickled(folder: Path) -> None:
    # (of remote code it depends on transformers: 5.0 loads a module anew each time)
    model = LSGBertForMaskedLM.from_pretrained(folder).eval()
    assert torch.equal(logits(pickle.loads(pickle.dumps(model))), logits(model))


def test_a_pipeline_by_folder(folder: Path) -> None:
    answer = pipeline("fill-mask", model=str(folder), trust_remote_code=True)
    assert len(answer("a short text " * 40 + "[MASK]")) == 5
