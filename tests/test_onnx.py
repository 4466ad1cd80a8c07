"""--onnx: the file gives the outputs of the model at every length, also without torch and transformers."""

import json
import re
from itertools import cycle
from pathlib import Path

import pytest
import torch
from helpers import (
    ALIKE,
    ENCODERS,
    SEQ2SEQ,
    architecture_of,
    assert_nothing_hidden,
    bare_environment,
    initial,
    run_bare,
)
from test_command import assert_refused, rewrite_json, run
from test_export import LENGTHS, further_inputs, largest_difference, padded_inputs
from test_sentence_encoders import TEXTS, encoder  # noqa: F401 (a fixture)

from lsg import ConversionError, LSGConverter, export_onnx, onnx_output
from lsg.model_types import MODEL_TYPES
from lsg.modeling.lsg_pattern import SPARSITY_TYPES
from lsg.onnx_check import check_differences, differences
from lsg.onnx_output import FILE, load_folder

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SMALL = {"block_size": 16, "sparse_block_size": 16}
# exporting two layers takes twice as long; ALBERT (whose layers share weights), BERT, ESM (whose contact head reads
# all of them) and ModernBERT (whose layers differ) have both of theirs
LAYERS: dict[str, dict[str, int]] = {"distilbert": {"n_layers": 1}}
LAYERS |= {name: {} for name in ("albert", "bert", "esm", "modernbert")}
ENCODERS = [name for name in ENCODERS if name not in ALIKE - {"layoutlm", "modernbert", "mpnet", "xmod"}]
ENCODERS.sort(key="modernbert".__eq__)  # the last
# every type, every head and every type of sparse keys, but not all combinations: each takes five seconds or more
HEADS = {
    "albert": "ForPreTraining",
    "bert": "ForNextSentencePrediction",
    "camembert": "ForMultipleChoice",
    "distilbert": "ForSequenceClassification",
    "electra": "ForTokenClassification",
    "ernie": "ForMaskedLM",
    "layoutlm": "ForTokenClassification",
    "roberta": "ForQuestionAnswering",
}
OUTPUTS = {"Model": ["last_hidden_state"], "ForQuestionAnswering": ["start_logits", "end_logits"]}
OUTPUTS["ForPreTraining"] = ["prediction_logits", "sop_logits"]


def convert(model_type: str, architecture: str | None, folder: Path, length: int = 1100, **fields) -> Path:
    """Convert and save a tiny checkpoint, of one layer unless LAYERS says otherwise."""
    source, fields = str(initial(model_type)), {**SMALL, **LAYERS.get(model_type, {"num_hidden_layers": 1}), **fields}
    for part in LSGConverter(length).convert_from_pretrained(source, architecture, **fields):
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type, kind", zip(ENCODERS, cycle(SPARSITY_TYPES), strict=False))
def test_every_type(model_type: str, kind: str, tmp_path: Path) -> None:
    head = HEADS.get(model_type, "Model")
    architectures = MODEL_TYPES[model_type].architectures
    architecture = next(
        (name for name in architectures if name.endswith(head)), architecture_of(model_type, "AutoModel")
    )
    folder = convert(model_type, architecture, tmp_path / "lsg", sparsity_type=kind)
    report = export_onnx(folder)
    assert [one["tokens"] for one in report.differences] == [1, 15, 16, 32, 33, 733, 1100]
    assert report.largest_difference < 1e-4 and f"{report.largest_difference:.1e}" in report.summary()
    assert report.outputs == OUTPUTS.get(head, ["logits"])
    assert_nothing_hidden(folder)
    model, _, max_length = load_folder(folder, "")
    assert max_length == 1100
    session = onnxruntime.InferenceSession(str(folder / FILE))
    assert [one.name for one in session.get_inputs()] == report.inputs
    assert session.get_inputs()[0].shape[-1] == "sequence_length"
    for length in LENGTHS:
        inputs = padded_inputs(model_type, model, length, architecture)
        mask = inputs["attention_mask"].bool()
        inputs = {name: x for name, x in inputs.items() if name in report.inputs}
        missing = [name for name in report.inputs if name not in inputs]
        inputs |= further_inputs(model.config, missing, inputs["input_ids"])
        with torch.no_grad():
            outputs = model(**inputs)
        found = session.run(report.outputs, {name: x.numpy() for name, x in inputs.items()})
        expected = [outputs[name] for name in report.outputs]
        assert largest_difference(expected, list(map(torch.from_numpy, found)), mask) < 1e-4, length


def test_a_sentence_encoder_with_the_command(encoder: Path, tmp_path: Path) -> None:  # noqa: F811
    """It has its embeddings as a second output; report, card and list of files say so, and the card's snippet runs."""
    library = pytest.importorskip("sentence_transformers")
    out = tmp_path / "out"
    options = ["--onnx", "--report", str(tmp_path / "report.json"), "--model_kwargs", '{"num_hidden_layers": 1}']
    assert run(encoder, out, *options) == 0
    report = json.loads((tmp_path / "report.json").read_text())["onnx"]
    assert report["outputs"] == ["last_hidden_state", "sentence_embedding"] and report["largest_difference"] < 1e-4
    assert report["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert FILE in json.loads((out / "conversion_files.json").read_text())["files"]
    card = (out / "README.md").read_text()
    assert "- onnx" in card and f"at most {report['largest_difference']:.1e}" in card
    texts = [*TEXTS, "a long text about a house " * 80]
    model = library.SentenceTransformer(str(out), trust_remote_code=True, device="cpu")
    inputs = model.tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    [found] = onnxruntime.InferenceSession(str(out / FILE)).run(["sentence_embedding"], dict(inputs))
    assert abs(found - model.encode(texts)).max() < 1e-5
    env = bare_environment(tmp_path / "packages")
    assert [run_bare(f"import {name}", tmp_path, env).returncode for name in ("torch", "transformers")] == [1, 1]
    [snippet] = [text for text in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL) if "onnxruntime" in text]
    process = run_bare(snippet + "print([x.shape for x in outputs.values()])", tmp_path, env)
    assert process.stdout.strip() == "[(1, 600, 16), (1, 8)]", process.stderr
    assert run(encoder, out, "--overwrite") == 0
    assert not (out / FILE).exists()


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_output, "MAX_FILE", 0)
    folder = convert("distilbert", "DistilBertModel", tmp_path / "lsg", length=512, sparsity_type="none")
    export_onnx(folder)
    assert sorted(file.name for file in (folder / FILE).parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnxruntime.InferenceSession(str(folder / FILE))


def test_a_file_that_differs_is_not_left(tmp_path: Path, monkeypatch) -> None:
    folder = convert("bert", "BertModel", tmp_path / "lsg")
    before = sorted(file.name for file in folder.iterdir())

    def wrong(model, file, report, max_length) -> None:
        report.differences += [{"tokens": tokens, "relative": 1e-3, "largest": 0.1, "rows": 1} for tokens in (33, 20)]

    def write(model, names, max_length, file) -> list[str]:
        file.write_bytes(b"a graph")
        return ["last_hidden_state"]

    monkeypatch.setattr(onnx_output, "write", write)
    monkeypatch.setattr(onnx_output, "compare", wrong)
    with pytest.raises(ConversionError, match="for 20 tokens differ from the model's by 1.0e-03"):
        export_onnx(folder)
    assert sorted(file.name for file in folder.iterdir()) == before


@pytest.mark.parametrize("model_type, architecture", [(sorted(SEQ2SEQ)[0], ""), ("bert", "BertLMHeadModel")])
def test_what_cannot_be_exported_is_refused_at_once(model_type, architecture, tmp_path: Path, capfd) -> None:
    options = ["--architecture", architecture] if architecture else []
    for more in ([], ["--dry_run"]):
        assert_refused(
            capfd, initial(model_type), tmp_path / "out", "onnx: it is for encoders", "--onnx", *options, *more
        )


def test_missing_packages_are_named(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(onnx_output, "PACKAGES", ("onnx", "onnx_of_tomorrow"))
    message = "onnx: onnx-of-tomorrow is missing; install it with: pip install onnx-of-tomorrow"
    assert_refused(capfd, initial("bert"), tmp_path / "out", message, "--onnx")


@pytest.mark.parametrize("field, value, message", [("adaptive", False, "is false"), ("is_decoder", True, "is set")])
def test_fields_that_forbid_it(field: str, value: bool, message: str, tmp_path: Path, capfd) -> None:
    options = ["--onnx", "--model_kwargs", json.dumps({field: value})]
    for more in ([], ["--dry_run"]):
        assert_refused(capfd, initial("bert"), tmp_path / "out", f"onnx: {field} {message}", *options, *more)


def test_a_wrong_graph_is_found(tmp_path: Path, monkeypatch, capfd) -> None:
    """One that was made of other weights; the command leaves nothing behind."""

    def write_other(model, *args):
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
            names = write(model, *args)
            for weight in model.parameters():
                weight.div_(1.01)
        return names

    write = onnx_output.write
    monkeypatch.setattr(onnx_output, "write", write_other)
    options = ["--onnx", "--architecture", "BertModel", "--model_kwargs"]
    options.append('{"sparsity_type": "none", "num_hidden_layers": 1}')
    assert run(initial("bert"), tmp_path / "out", *options) == 1
    assert re.search(r"onnx: \S+/out: the outputs of onnx/model.onnx for 1 tokens differ", capfd.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_nan_in_any_output_is_a_difference() -> None:
    x = torch.ones(2)
    found = differences([(x, x), (x, torch.tensor([1.0, torch.nan]))])
    assert all(value != value for value in found.values())
    report = onnx_output.OnnxReport(FILE, 20, [], [], [{"tokens": 1, "rows": 1, **found}])
    with pytest.raises(ConversionError, match="differ from the model's by nan"):
        check_differences(report, MODEL_TYPES["bert"].config_class(), "here")


def test_a_head_that_reads_token_0_where_no_global_stands_for_it(tmp_path: Path) -> None:
    """Padding at token 0 has no defined output: the comparison leaves such rows out."""
    folder = convert("distilbert", "DistilBertForSequenceClassification", tmp_path / "lsg", pool_with_global=False)
    assert export_onnx(folder).largest_difference < 1e-4


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = convert("bert", "BertModel", tmp_path / "lsg")
    rewrite_json(folder / "config.json", architectures=["LSGBertForSequenceClassification"])
    with pytest.raises(ConversionError, match="weights are missing: classifier.bias, classifier.weight"):
        export_onnx(folder)


def test_other_checkpoints_of_sentence_transformers(tmp_path: Path, capfd) -> None:
    """A pair classifier keeps its head; pooling that is not for sentences is refused."""
    library = pytest.importorskip("sentence_transformers")
    fields = {**SMALL, "num_hidden_layers": 1}
    library.CrossEncoder(str(initial("bert")), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "pairs"))
    assert run(tmp_path / "pairs", tmp_path / "out", "--onnx", "--model_kwargs", json.dumps(fields)) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / FILE))
    assert [one.name for one in session.get_outputs()] == ["logits"]
    library.SparseEncoder(str(initial("bert")), device="cpu").save_pretrained(str(tmp_path / "sparse"))
    assert run(tmp_path / "sparse", tmp_path / "none", "--onnx") == 1
    assert "cannot be exported; of sentence-transformers: Pooling, Normalize" in capfd.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_plain_checkpoint_is_refused() -> None:
    with pytest.raises(ConversionError, match="an LSG checkpoint is expected, this is a plain one"):
        export_onnx(initial("bert"))


def test_a_dry_run_names_the_file(tmp_path: Path, capsys) -> None:
    assert run(initial("bert"), tmp_path / "out", "--onnx", "--dry_run") == 0
    assert FILE in capsys.readouterr().out
