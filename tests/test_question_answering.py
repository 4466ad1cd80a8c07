"""experiments/question_answering: SQuAD files, answers, readers, and whole runs."""

import json
from pathlib import Path

import pytest
import torch
from cloze_texts import make_head, make_text  # noqa: F401 (a fixture)
from helpers import initial, write_json

from experiments.common.errors import InputError
from experiments.question_answering import answers, long_documents, train_cloze
from experiments.question_answering.answers import (
    Answer,
    best_span,
    choose_answer,
    encode_question,
    overlap_score,
    score_answer,
)
from experiments.question_answering.readers import LOGITS, QuestionAsGlobals, Reader, sizes
from experiments.question_answering.report import quarter
from experiments.question_answering.squad import Question, read_squad, write_squad
from lsg_converter import LSGConverter


@pytest.fixture
def folder(tmp_path: Path, head) -> Path:
    """A checkpoint named head, and a folder of documents named docs."""
    for part in head:
        part.save_pretrained(tmp_path / "head")
    (tmp_path / "docs").mkdir()
    for seed in range(3):
        (tmp_path / "docs" / f"{seed}.txt").write_text(make_text(seed, 30), "utf-8")
    return tmp_path


# SQuAD's format


def squad(**change: object) -> dict:
    """Return a small file of version 2 with two passages, one change in its first question."""
    item = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 4}], **change}
    none = {"id": "2", "question": "Where?", "answers": [], "is_impossible": True}
    second = {"id": "3", "question": "What?", "answers": [{"text": "tea", "answer_start": 0}]}
    passages = [{"context": "Say Ada did.", "qas": [item, none]}, {"context": "tea was had", "qas": [second]}]
    return {"version": "v2.0", "data": [{"title": "T", "paragraphs": passages}]}


def test_squad_files(tmp_path: Path) -> None:
    file = tmp_path / "squad.json"
    write_json(file, squad())
    questions = read_squad(file)
    assert questions[0] == Question("1", "Who?", "Say Ada did.", (("Ada", 4),), "T")
    assert questions[1].answers == () and [question.name for question in questions] == ["1", "2", "3"]
    joined = read_squad(file, "join")
    for question in joined:
        assert question.context == "Say Ada did.\ntea was had"
        assert all(question.context[start:].startswith(text) for text, start in question.answers)
    write_squad(joined, tmp_path / "again.json")
    assert read_squad(tmp_path / "again.json") == joined


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{", "not readable as JSON"),
        ([], "a list named 'data'"),
        ({"data": []}, "there are no questions"),
        (
            {"data": [{"paragraphs": [{"qas": []}]}]},
            "data[0].paragraphs[0]: SQuAD's format has a string named 'context'",
        ),
        (squad(question=None), "qas[0]: SQuAD's format has a string named 'question' here, found nothing"),
        (squad(answers=[]), "qas[0].answers: at least one answer"),
        (squad(answers=[{"text": "Ada", "answer_start": 5}]), "'Ada' does not begin at character 5"),
        (squad(answers=[{"text": "Ada", "answer_start": "4"}]), "a number named 'answer_start' here, found str"),
    ],
)
def test_bad_squad_files_end_in_one_line(value: object, expected: str, tmp_path: Path, folder: Path, capsys) -> None:
    file = tmp_path / "bad.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    options = ["--checkpoint", str(folder / "head"), "--questions", str(file), "--out", str(tmp_path / "out")]
    assert long_documents.main(options) == 1
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1, message


# answers


def test_the_best_span_is_that_of_a_search_through_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for limit in (1, 4, 50):
        start, end = torch.randn(2, 3, 20, generator=generator)
        allowed = torch.zeros(3, 20, dtype=torch.bool)
        allowed[0, 5:19] = allowed[1, 3:7] = allowed[2, 19:] = True
        spans = [(w, i, j) for w in range(3) for i in range(20) for j in range(i, min(i + limit, 20))]
        spans = [(w, i, j) for w, i, j in spans if allowed[w, i] and allowed[w, j]]
        expected = max(spans, key=lambda span: start[span[0], span[1]] + end[span[0], span[2]])
        assert best_span(start, end, allowed, limit)[1:] == expected


def test_windows_have_the_question_and_all_of_the_document(head) -> None:
    tokenizer = head[1]
    context = make_text(3, 20)
    whole = encode_question(tokenizer, "The server?", context, 10_000)
    assert len(whole.inputs["input_ids"]) == 1
    places = {tuple(pair) for pair in whole.offsets[whole.is_document].tolist()}
    parts = encode_question(tokenizer, "The server?", context, 60, 20)
    own = [[tuple(pair) for pair in parts.offsets[i][parts.is_document[i]].tolist()] for i in range(len(parts.offsets))]
    assert set().union(*own) == places and len(own) > 3
    assert all(a[-20:] == b[:20] for a, b in zip(own[:-1], own[1:], strict=True))
    question = int(whole.is_document[0].int().argmax())
    assert (parts.inputs["input_ids"][:, :question] == whole.inputs["input_ids"][:, :question]).all()
    with pytest.raises(InputError, match="a question leaves"):
        encode_question(tokenizer, "The server?", context, 30, 25)


def test_answers_are_characters_of_the_context(head) -> None:
    context = make_text(4, 9)
    encoded = encode_question(head[1], "Who?", context, 40, 10)
    start, end = torch.zeros(2, *encoded.is_document.shape)
    row = 2
    first = int(encoded.is_document[row].int().argmax()) + 4
    start[row, first], end[row, first + 2] = 5, 5
    answer = choose_answer(start, end, encoded, 30, may_refuse=False)
    assert answer == Answer((int(encoded.offsets[row, first, 0]), int(encoded.offsets[row, first + 2, 1])), 10)
    start[:, 0] = 11
    assert choose_answer(start, end, encoded, 30, may_refuse=False) == answer
    assert choose_answer(start, end, encoded, 30, may_refuse=True) == Answer(None, 11)
    start[1, 0] = 9  # one window that is less sure
    assert choose_answer(start, end, encoded, 30, may_refuse=True) == answer


def test_scores() -> None:
    context = "The red door opens. The blue door of the house is shut."
    question = Question("1", "Which?", context, (("blue door", 24), ("the blue door", 20)), "d")

    def scores(text: str) -> tuple[float, ...]:
        start = context.index(text)
        return tuple(score_answer(Answer((start, start + len(text)), 0.0), question).values())

    assert scores("blue door") == scores("The blue door") == (1, 1, 1)
    assert scores("red door") == (0, 0.5, 0) and scores("house") == (0, 0, 1)
    assert scores("opens. The blue door")[0::2] == (0, 0)
    assert tuple(score_answer(Answer(None, 0.0), question).values()) == (0, 0, 0)
    first = Question("2", "Which?", context, (("red door", 4),), "d")
    assert score_answer(Answer((8, 23), 0.0), first)["sentence"] == 0  # it ends in the next sentence
    assert [quarter(Question("", "", "x" * 8, (("x", i),), "")) for i in (0, 2, 5, 7)] == [0, 1, 2, 3]
    none = Question("3", "Which?", context, (), "d")
    assert score_answer(Answer(None, 0.0), none)["exact"] == 1 and score_answer(Answer((0, 3), 0.0), none)["exact"] == 0
    assert overlap_score("a", "the") == 1 and overlap_score("a cat", "the") == 0


# readers


def test_the_question_as_globals(head) -> None:
    model, tokenizer = head
    converted, _ = LSGConverter(1024).convert(model, tokenizer, **sizes("none", 32))
    reader = Reader("", QuestionAsGlobals(converted, tokenizer.sep_token_id, 512), 1024)
    short = encode_question(tokenizer, "The server?", make_text(5, 1)[:40], 1024).inputs
    assert short["input_ids"].shape[1] <= 64  # two blocks: all tokens attend to all
    plain = Reader("", converted, 1024).read(short, *LOGITS)
    for found, expected in zip(reader.read(short, *LOGITS), plain, strict=True):
        assert (found - expected).abs().max() < 1e-4
    long = encode_question(tokenizer, "The server?", make_text(5, 12), 1024).inputs
    changed = {**long, "input_ids": long["input_ids"].clone()}
    changed["input_ids"][0, 2] = long["input_ids"][0, -2]  # of the question
    difference = (reader.read(long, *LOGITS)[0] - reader.read(changed, *LOGITS)[0]).abs()
    assert (difference > 1e-6).all()  # every token sees it
    padded = {name: torch.nn.functional.pad(x, (0, 7)) for name, x in long.items()}
    assert (reader.read(padded, *LOGITS)[0][:, :-7] - reader.read(long, *LOGITS)[0]).abs().max() < 1e-5
    assert converted.config.num_global_tokens == 1 and converted.config.pool_with_global


def test_windows_are_read_in_batches_with_the_same_result(head) -> None:
    model, tokenizer = head
    inputs = encode_question(tokenizer, "The server?", make_text(6, 20), 60, 20).inputs
    together = Reader("", model, 60, 20, batch_size=100).read(inputs, *LOGITS)
    for found, expected in zip(Reader("", model, 60, 20, batch_size=3).read(inputs, *LOGITS), together, strict=True):
        assert found.shape == inputs["input_ids"].shape and (found - expected).abs().max() < 1e-5


# the scripts

QUICK = ["--block_sizes", "32", "--sparsity_types", "none", "norm", "--windows", "128", "--overlap", "16"]


def fail_at(number: int):
    """Return a function like score_answer that fails at a question, counted from 1."""
    asked = []

    def score(answer: Answer, question: Question) -> dict[str, float]:
        asked.append(question.name)
        if len(set(asked)) == number:
            raise RuntimeError
        return score_answer(answer, question)

    return score


def test_from_training_to_the_report(folder: Path, monkeypatch, capsys) -> None:
    out, trained, docs = folder / "out", folder / "trained", str(folder / "docs")
    options = ["--initial_model", str(initial("bert")), "--text", docs, "--output", str(trained)]
    assert train_cloze.main([*options, "--steps", "2", "--batch_size", "2", "--threads", "1"]) == 0
    assert "step 2: loss" in capsys.readouterr().out
    assert train_cloze.main(options) == 1 and "it exists already" in capsys.readouterr().err
    config = json.loads((trained / "config.json").read_text("utf-8"))
    assert config["hidden_dropout_prob"] == 0.1 and config["architectures"] == ["BertForQuestionAnswering"]
    options = ["--checkpoint", str(trained), "--out", str(out), *QUICK, "--max_sequence_length", "4096"]
    sized = ["--tokens", "200", "4000", "--documents", "2", "--questions_each", "3"]
    saved = folder / "asked.json"
    assert long_documents.main([*options, "--text", docs, *sized, "--save_questions", str(saved)]) == 0
    results = json.loads((out / "long_documents.json").read_text("utf-8"))
    names = [row["reader"] for row in results["rows"]]
    assert (results["documents"], results["questions"], sum(results["by_quarter"])) == (2, 6, 6)
    assert names[:2] == ["first 512 tokens", results["reference"]] and len(names) == 7
    assert all(row["seconds"] > 0 and 0 <= row["exact"]["mean"] <= 1 for row in results["rows"])
    assert results["variants"]["LSG pinned, norm, b = 32"]["pin_first_segment"]
    tables = (out / "long_documents.md").read_text("utf-8")
    assert tables.count("LSG pinned, norm, b = 32") == 2 and "without an answer" not in tables
    assert (out / "long_documents.png").stat().st_size > 10_000
    with monkeypatch.context() as patch:  # the results so far are kept
        patch.setattr(long_documents, "SAVE_EVERY", 2)
        patch.setattr(long_documents, "write_report", lambda *_: pytest.fail("not there yet"))
        patch.setattr(answers, "score_answer", fail_at(5))
        with pytest.raises(RuntimeError):
            long_documents.main([*options, "--questions", str(saved), "--name", "part"])
    assert json.loads((out / "part.json").read_text("utf-8"))["questions"] == 4
    assert long_documents.main([*options, "--questions", str(saved), "--name", "part", "--minutes", "0"]) == 0
    assert json.loads((out / "part.json").read_text("utf-8"))["questions"] == 1
    # the same questions from the file have the same answers
    assert long_documents.main([*options, "--questions", str(saved), "--name", "again"]) == 0
    again = json.loads((out / "again.json").read_text("utf-8"))
    assert [row["overlap"] for row in again["rows"]] == [row["overlap"] for row in results["rows"]]
    (out / "again.md").unlink()
    with pytest.raises(SystemExit) as end:
        long_documents.main(["--draw", str(out)])
    assert end.value.code == 0 and (out / "again.md").exists()


def test_questions_without_an_answer(folder: Path, monkeypatch) -> None:
    asked = []

    def choose(*args) -> Answer:
        asked.append(args[-1])
        return choose_answer(*args)

    monkeypatch.setattr(answers, "choose_answer", choose)
    write_json(folder / "squad.json", squad())
    options = ["--checkpoint", str(folder / "head"), "--questions", str(folder / "squad.json"), *QUICK]
    assert long_documents.main([*options, "--passages", "join", "--out", str(folder)]) == 0
    results = json.loads((folder / "long_documents.json").read_text("utf-8"))
    assert results["without_answer"] == 1 and all(row["without_answer"] in (0, 1) for row in results["rows"])
    assert set(asked) == {True}
    # a text of two blocks is read as by the original, whichever way
    assert len({row["overlap"]["mean"] for row in results["rows"]}) == 1
    assert "right without an answer" in (folder / "long_documents.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("script", "options", "code", "expected"),
    [
        (long_documents, ["--checkpoint", "head"], 2, "--text --questions is required"),
        (long_documents, ["--checkpoint", "head", "--text", "docs", "--questions", "x"], 2, "not allowed with"),
        (long_documents, ["--checkpoint", "head", "--text", "docs"], 1, "no document"),
        (long_documents, ["--checkpoint", "head", "--text", "none"], 1, "none: no such file or folder"),
        (long_documents, ["--checkpoint", "none", "--text", "docs"], 1, "none"),
        (long_documents, ["--checkpoint", "head", "--text", "docs", "--windows", "0"], 1, "--windows 0"),
        (long_documents, ["--draw", "head"], 2, "not a results file"),
        (train_cloze, ["--text", "docs", "--output", "new"], 2, "--initial_model"),
        (train_cloze, ["--initial_model", "head", "--text", "docs", "--output", "docs"], 1, "it exists already"),
        (train_cloze, ["--initial_model", "none", "--text", "docs", "--output", "new"], 1, "none"),
        (train_cloze, ["--initial_model", "head", "--text", "empty.txt", "--output", "new"], 1, "no document"),
    ],
)
def test_bad_options_end_in_one_line(
    script, options: list[str], code: int, expected: str, folder: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty.txt").touch()
    try:
        found = script.main([*options, "--out", "out"] if script is long_documents else options)
    except SystemExit as error:
        found = error.code
    message = capsys.readouterr().err
    assert found == code and expected in message and message.count("\n") == 1, message
    assert not (folder / "new").exists()
