"""The experiment on search: what is asked and what is indexed, vectors and ranks of known answers, a whole run."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cloze_texts import make_text
from helpers import initial
from test_command import write_json
from transformers import AutoModel

from experiments.common.documents import Document, Heading
from experiments.common.models import load_encoder
from experiments.common.sentences import sentence_spans
from experiments.embedding import report, search
from experiments.embedding.queries import EACH, Query, cut_out, make_queries, spread, without_number
from experiments.embedding.vectors import (
    BATCH_TOKENS,
    make_encoder,
    make_readers,
    read_all,
    read_whole,
    right_ranks,
    split_chunks,
)

BERT = str(initial("bert"))
SETTINGS = [{"block_size": 32, "sparse_block_size": 32}]


@pytest.fixture(scope="module")
def bert():
    return load_encoder(BERT, AutoModel)


def make_document(seed: int, *headings: str) -> Document:
    """A document of 60 sentences, whose headings stand one paragraph after the other."""
    text = make_text(seed, 60)
    return Document(f"{seed}", text, f"{seed}. The title {seed}", tuple(Heading(x, i) for i, x in enumerate(headings)))


def test_what_is_asked_is_not_indexed() -> None:
    documents = [make_document(seed, f"1.2. All about {seed}", "Of both documents") for seed in (1, 2)]
    pages, queries = make_queries(documents, 0)
    for number, (document, page) in enumerate(zip(documents, pages, strict=True)):
        own = [query for query in queries if query.document == number]
        kinds = ["title", "first paragraph", "heading", *["sentence"] * EACH]
        assert [query.kind for query in own] == kinds
        first, *others = document.text.splitlines()
        assert [query.text for query in own[:3]] == [f"The title {number + 1}", first, f"All about {number + 1}"]
        assert page.title == own[0].text and not any(query.text in page.text for query in own)
        sentences = {document.text[slice(*span)] for span in sentence_spans(document.text)}
        left = {page.text[slice(*span)] for span in sentence_spans(page.text)}
        asked = {query.text for query in own[3:]}
        in_first = {first[slice(*span)] for span in sentence_spans(first)}
        assert left == sentences - asked - in_first and asked <= sentences - in_first
        for query in own[3:]:
            assert query.place == pytest.approx("\n".join(others).index(query.text) / len("\n".join(others)))
    assert make_queries(documents, 0) == (pages, queries) != make_queries(documents, 1)


def test_what_stands_in_two_documents_is_not_asked() -> None:
    same = make_document(1)
    _, queries = make_queries([same, Document("again", same.text, same.title.upper())], 0)
    assert queries == []
    _, queries = make_queries([same, Document("again", same.text, "Another title")], 0)
    assert [query.text for query in queries] == ["The title 1", "Another title"]


def test_headings_that_can_be_asked() -> None:
    headings = ["Two words", "the title 1", " ".join(["word"] * 21), "A heading to ask", "Chapter 2. Three more words"]
    document = make_document(1, *headings)
    asked = [[q.text for q in make_queries([document], seed)[1] if q.kind == "heading"] for seed in range(9)]
    assert {len(texts) for texts in asked} == {1}  # all stand in the first third
    assert {text for texts in asked for text in texts} == {"A heading to ask", "Three more words"}
    assert [without_number(x) for x in ("4.1.2.\N{NO-BREAK SPACE}A", "F.20. B", "Appendix A. C", "2 D", "An. E")] == [
        *("A", "B", "C"),
        *("2 D", "An. E"),
    ]


def test_parts_of_a_document() -> None:
    candidates = [(0.0, "a"), (0.32, "b"), (0.34, "c"), (1.0, "d")]
    found = {tuple(item for _, item in spread(candidates, random.Random(seed))) for seed in range(9)}
    assert found == {("a", "c", "d"), ("b", "c", "d")}
    assert cut_out("One. Two.\nThree.", [(10, 16), (0, 5)]) == "Two."


def test_vectors_are_the_means_of_the_models_states(bert, monkeypatch) -> None:
    model, tokenizer = bert
    encoder = make_encoder(model, tokenizer)
    rows = [torch.arange(10, 20), torch.arange(30, 70), torch.arange(5, 8)]
    found = encoder.vectors(rows)
    for row, vector in zip(rows, found, strict=True):
        ids = [tokenizer.cls_token_id, *row.tolist(), tokenizer.sep_token_id]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        assert (vector - expected / expected.norm()).abs().max() < 1e-5
    assert BATCH_TOKENS > 100
    monkeypatch.setattr("experiments.embedding.vectors.BATCH_TOKENS", 50)  # a row at a time
    assert (encoder.vectors(rows) - found).abs().max() < 1e-5


def test_chunks_of_equal_length() -> None:
    for count, size, sizes in ((10, 12, [10]), (11, 12, [6, 5]), (25, 12, [9, 8, 8])):
        chunks = split_chunks(torch.arange(count), size)
        assert list(map(len, chunks)) == sizes and torch.equal(torch.cat(chunks), torch.arange(count))


def test_vectors_of_every_method(bert) -> None:
    title, tokens = torch.arange(5, 9), torch.arange(10, 70).repeat(12)
    readers = make_readers(*bert, SETTINGS, 1024, [64])
    vectors, seconds = read_all(readers, [title, title], [tokens, tokens[:50]])
    encoder = make_encoder(*bert)
    lsg = "LSG norm, b = s = 32, f = 2"
    names = [lsg, f"{lsg}, late chunks of 64", "first 512 tokens", "mean of chunks of 64", "best chunk of 64"]
    assert set(vectors) == set(seconds) == {*names, f"{names[-1]}, title in front"} and min(seconds.values()) > 0
    assert [len(vectors[name][0]) for name in names] == [1, 12, 1, 1, 12]  # 720 tokens, at most 62 in a chunk
    chunks = [tokens[60 * i : 60 * i + 60] for i in range(12)]
    plain = encoder.vectors(chunks)
    mean = plain.mean(0) / plain.mean(0).norm()
    expected = {
        "first 512 tokens": encoder.vectors([tokens[:510]]),
        "best chunk of 64": plain,
        "mean of chunks of 64": mean[None],
        "best chunk of 64, title in front": encoder.vectors([torch.cat([title, chunk]) for chunk in chunks]),
    }
    for name, own in expected.items():
        assert (vectors[name][0] - own).abs().max() < 1e-5, name
    # two blocks are read as by the original
    assert (vectors[lsg][1] - encoder.vectors([tokens[:50]])).abs().max() < 1e-5
    assert (vectors[lsg][0] - encoder.vectors([tokens[:510]])).abs().max() > 1e-3


def test_late_chunks_are_means_of_the_whole_documents_states(bert) -> None:
    encoder, tokens = make_encoder(*bert), torch.arange(10, 110)
    [states] = encoder.states([tokens])
    found = read_whole("dense", encoder, [52])(tokens[:3], tokens)
    expected = torch.stack([states[1:51].mean(0), states[51:101].mean(0)])  # without start and end token
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert (found["dense, late chunks of 52"] - expected).abs().max() < 1e-5
    alone = encoder.vectors([tokens[:50], tokens[50:]])
    assert (found["dense, late chunks of 52"] - alone).abs().max() > 1e-3


def test_ranks_of_made_up_vectors() -> None:
    axes = torch.eye(3)
    documents = [axes[:1], axes[1:], axes[2:]]
    # the third query is as near to document 1 as to document 2: a tie is lost
    assert right_ranks(axes, documents, torch.tensor([0, 1, 2])).tolist() == [1, 1, 2]
    assert right_ranks(axes[:1], documents, torch.tensor([1])).tolist() == [3]


def test_summary_of_made_up_ranks() -> None:
    queries = [
        Query("title", "t", 0),
        Query("title", "u", 1),
        Query("sentence", "s", 0, 0.1),
        Query("sentence", "v", 1, 1.0),
    ]
    names = ["LSG", "first 512 tokens", "best chunk of 64", "best chunk of 64, title in front"]
    ranks = dict(zip(names, torch.tensor([[1, 2, 4, 1], [2, 2, 2, 2], [1, 1, 1, 1], [1, 1, 1, 1]]), strict=True))
    found = report.summarize(queries, ranks, dict.fromkeys(names, 1.0), dict.fromkeys(names, 3.0), [10, 20])
    assert found["queries"] == {"title": 2, "first paragraph": 0, "heading": 0, "sentence": 2}
    assert found["references"] == names[1:3] and found["by_quarter"] == [1, 0, 0, 1]
    lsg = found["rows"][0]
    assert lsg["by_quarter"] == [0.25, None, None, 1.0] and lsg["seconds"] == 1.5
    title, sentence = lsg["kinds"]["title"], lsg["kinds"]["sentence"]
    assert (title["reciprocal_rank"], title["accuracy"], sentence["reciprocal_rank"]) == (0.75, 0.5, 0.625)
    # differences .5 and 0; deviations by document .25 and -.25; sqrt(2 * .125) / 2 = .25
    assert title["less"]["first 512 tokens"] == {"difference": 0.25, "margin": 0.49}
    assert [set(row["kinds"]) for row in found["rows"][2:]] == [{"title", "sentence"}, {"sentence"}]
    assert "| LSG | 1 | 0.750 (0.50) | 0.625 (0.50) | 1.500 |" in report.make_tables({**ABOUT, **found})


ABOUT = {
    "arguments": {"checkpoint": "tiny"},
    "device": "CPU",
    "versions": {"torch": "2", "transformers": "5"},
    "date": "2026-01-01",
    "cpu_minutes": 1,
}


def write_pages(folder: Path, count: int) -> list[str]:
    """Write documents as .rst files, one without a title; return the options that read them."""
    folder.mkdir()
    for number in range(count + 1):
        title = f"All about {number}\n===========\n\n" if number < count else ""
        first, *others = make_text(number, 15).splitlines()
        parts = others if number == count else [f"More of part {number}\n----------------", *others]
        (folder / f"{number}.rst").write_text(title + "\n\n".join([first, *parts]), "utf-8")
    return ["--checkpoint", BERT, "--text", str(folder), "--tokens", "512", "8192"]


def test_search_from_end_to_end(tmp_path: Path, capsys) -> None:
    options = [*write_pages(tmp_path / "pages", 4), "--chunks", "64", "--model_kwargs", json.dumps(SETTINGS[0])]
    assert search.main([*options, "--out", str(tmp_path), "--name", "search_pages"]) == 0
    written = tmp_path / "search_pages.json"
    results = json.loads(written.read_text())
    assert results["documents"] == 4  # the one without a title is left out
    assert results["queries"] == {"title": 4, "first paragraph": 4, "heading": 4, "sentence": 12}
    assert len(results["rows"]) == 6
    for row in results["rows"]:
        assert all(0.25 <= kind["reciprocal_rank"] <= 1 for kind in row["kinds"].values())
    table = written.with_suffix(".md").read_text()
    assert table in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        search.main(["--draw", str(tmp_path)])
    assert end.value.code == 0 and written.with_suffix(".md").read_text() == table
    assert written.with_suffix(".png").stat().st_size > 10_000


def make_sentence_encoder(folder: Path, kind: str, **settings: bool) -> list[str]:
    """A checkpoint of sentence-transformers with another pooling; return the options that name it."""
    for file in initial("bert").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "modules.json", [{"path": ""}, {"path": "1_Pooling", "type": f"sentence_transformers.models.{kind}"}]
    )
    write_json(folder / "1_Pooling" / "config.json", settings)
    return ["--checkpoint", str(folder)]


REFUSED: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "one document": (lambda folder: ["--documents", "1"], "--documents 1 is not allowed: it must be at least 2"),
    "long chunks": (
        lambda folder: ["--chunks", "300"],
        "--chunks 300 is not allowed: it must be at least 16 and at most",
    ),
    "short documents": (lambda folder: ["--tokens", "100", "200"], "--tokens 100 200 is not allowed: at least 512"),
    "unknown field": (lambda folder: ["--model_kwargs", "{'block': 1}"], "unknown field"),
    "no such page": (lambda folder: ["--text", str(folder / "none")], "no such file or folder"),
    "only one page": (
        lambda folder: ["--text", str(folder / "pages" / "0.rst")],
        "nothing to search among 1 documents",
    ),
    "other pooling": (
        lambda folder: make_sentence_encoder(folder, "Pooling", pooling_mode_cls_token=True),
        "mean pooling is expected, this has pooling_mode_cls_token",
    ),
    "dense layer": (
        lambda folder: make_sentence_encoder(folder, "Dense"),
        "mean pooling is expected, this has a module Dense",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_ends_in_one_line(case: str, tmp_path: Path, capsys) -> None:
    options, expected = REFUSED[case]
    pages = write_pages(tmp_path / "pages", 2)
    assert search.main([*pages, "--out", str(tmp_path / "out"), *options(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1, message


def test_a_sentence_encoder_with_mean_pooling_is_accepted(tmp_path: Path) -> None:
    options = make_sentence_encoder(tmp_path, "Pooling", pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    pages = write_pages(tmp_path / "pages", 2)
    assert search.main([*pages, "--chunks", "64", "--out", str(tmp_path / "out"), *options]) == 0
