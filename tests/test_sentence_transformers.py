"""Converted folders in sentence-transformers: embed, train, save, load again; pair classifiers and sparse encoders."""

from pathlib import Path

import pytest
import torch
from helpers import ALIKE, architecture_of, encoders_with, initial

from lsg import LSGConverter

sentence_transformers = pytest.importorskip("sentence_transformers")
TEXTS = ["a short text", "a text that is long enough for blocks " * 12]


@pytest.fixture(params=[t for t in encoders_with("AutoModelForMaskedLM") if t not in ALIKE])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that was no sentence-transformers checkpoint before."""
    model_type = request.param
    masked = architecture_of(model_type, "AutoModelForMaskedLM")
    for part in LSGConverter(600).convert_from_pretrained(initial(model_type), masked, block_size=8):
        part.save_pretrained(tmp_path / "lsg")
    return tmp_path / "lsg"


def test_embeddings_training_saving_and_loading(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import losses

    datasets = pytest.importorskip("datasets")
    model = sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert type(model[0].model).__name__.startswith("LSG")
    before = model.encode(TEXTS, convert_to_tensor=True)
    inputs = model.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model[0].model.eval()(**inputs).last_hidden_state
    weights = inputs["attention_mask"][..., None] / inputs["attention_mask"].sum(1)[:, None, None]
    assert (before - (states * weights).sum(1)).abs().max().item() < 1e-5
    rows = datasets.Dataset.from_dict({"anchor": TEXTS * 2, "positive": TEXTS[::-1] * 2, "score": [0.0, 1.0] * 2})
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True,
        report_to=[], disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    loss = losses.CosineSimilarityLoss(model)
    trainer = sentence_transformers.SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=loss)
    assert trainer.train().global_step == 3
    after = model.encode(TEXTS, convert_to_tensor=True)
    assert (after - before).abs().max() > 1e-4
    model.save_pretrained(str(tmp_path / "trained"))
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "trained"), trust_remote_code=True, device="cpu")
    assert type(loaded[0].model).__name__ == type(model[0].model).__name__
    assert (loaded.encode(TEXTS, convert_to_tensor=True) - after).abs().max().item() < 1e-5


def test_pair_classifiers_and_sparse_encoders(folder: Path) -> None:
    options = {"trust_remote_code": True, "device": "cpu"}
    pairs = sentence_transformers.CrossEncoder(str(folder), num_labels=1, **options)
    assert pairs.predict([tuple(TEXTS), tuple(TEXTS[::-1])]).shape == (2,)
    sparse = sentence_transformers.SparseEncoder(str(folder), **options)
    assert type(sparse[0].model).__name__.startswith("LSG")
    assert sparse.encode(TEXTS).shape == (2, sparse[0].model.config.vocab_size)
