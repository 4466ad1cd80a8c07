"""experiments/question_answering: documents, cloze questions, SQuAD files, answers, readers, and whole runs."""

import gzip
import json
import random
import re
from pathlib import Path

import pytest
import torch
from helpers import initial, write_json
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from experiments.common.documents import Document, read_documents
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
from experiments.question_answering.cloze import DROPPED, FUNCTION_WORDS, GAP, answer_spans, ask, sentence_spans
from experiments.question_answering.readers import QuestionAsGlobals, Reader, sizes
from experiments.question_answering.report import quarter
from experiments.question_answering.squad import Question, read_squad, write_squad
from experiments.question_answering.training import Sampler, cloze_loss
from lsg_converter import LSGConverter

NOUNS = (
    "server client socket packet kernel buffer thread signal device driver sector volume router bridge cipher".split()
)
VERBS = "sends writes stores moves copies drops reads checks maps flushes".split()


def make_text(seed: int, sentences: int) -> str:
    """Return sentences that are all different, three in a paragraph."""
    rng = random.Random(seed)
    words = [f"{rng.choice(NOUNS)}{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}" for i in range(100)]
    made = []
    for _ in range(sentences):
        first, second, third = rng.sample(words, 3)
        tail = f"before the {rng.choice(NOUNS)} of the {third} can {rng.choice(VERBS)[:-1]} it."
        made.append(f"The {first} of this machine {rng.choice(VERBS)} every {second} {tail}")
    return "\n".join(" ".join(made[i : i + 3]) for i in range(0, len(made), 3))


@pytest.fixture(scope="module")
def head():
    """A tiny question-answering model whose head is not constant, and its tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(initial("bert")).eval()
    model.qa_outputs.weight.data.normal_()
    return model, AutoTokenizer.from_pretrained(initial("bert"))


@pytest.fixture
def folder(tmp_path: Path, head) -> Path:
    """A checkpoint named head, and a folder of documents named docs."""
    for part in head:
        part.save_pretrained(tmp_path / "head")
    (tmp_path / "docs").mkdir()
    for seed in range(3):
        (tmp_path / "docs" / f"{seed}.txt").write_text(make_text(seed, 30), "utf-8")
    return tmp_path


# documents

SENTENCE = "This sentence of the page is prose, and it stays."
CODE = "This is code that looks like a sentence."
PAGES = {
    "a.html": f"<head><title>No title of a page is prose.</title></head><p>{SENTENCE}</p><pre>{CODE}</pre>"
    "<ul><li>A <b>list</b> item is prose if it is one.</ul><nav><p>Go to the next page of all.</p>",
    "b.html.en": "<p>Another page is there, in English &amp; not in French.</p>",
    "c.html.fr": "<p>This page would be in French, so it is not read.</p>",
    "d.rst": f".. code::\n\n   {CODE}\n\n.. note:: A note is prose that :ref:`is kept <x>`.\n\n"
    f"An example of what is left out::\n\n   {CODE}\n\n* ``A`` list item that is a sentence.\n",
    "e.md": f"# A heading is not a sentence of prose.\n\n```\n{CODE}\n```\n\n"
    "A [link](http://x) is *replaced* by its text.\n",
    "f.pod": f"=head1 NAME\n\n    {CODE}\n\nA pod has C<< I<codes> >> and L<links|other> in it.\n",
    "g.txt": "1 2 3 4 5 6 7 8 9 10.\n\nno full stop at the end\n\nToo few words.\n",
    "h.jpg": SENTENCE,
}
PROSE = {
    "a.html": f"{SENTENCE}\nA list item is prose if it is one.",
    "b.html.en": "Another page is there, in English & not in French.",
    "d.rst": "A note is prose that is kept.\nAn example of what is left out:\nA list item that is a sentence.",
    "e.md": "A link is replaced by its text.",
    "f.pod": "A pod has codes and links in it.",
}


def test_documents_are_prose(tmp_path: Path) -> None:
    for name, page in PAGES.items():
        (tmp_path / name).write_text(page, "utf-8")
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "j.rst.txt.gz").write_bytes(gzip.compress(b"A compressed text is read, too, in a folder.\n"))
    expected = {**PROSE, "j.rst.txt.gz": "A compressed text is read, too, in a folder."}
    assert {Path(document.name).name: document.text for document in read_documents([tmp_path])} == expected
    assert [document.text for document in read_documents([tmp_path / "h.jpg"])] == [SENTENCE]  # it was named


def test_documents_that_are_left_out(tmp_path: Path, capsys) -> None:
    text = make_text(0, 30)
    (tmp_path / "a.txt").write_text(text, "utf-8")
    (tmp_path / "b.txt").write_text(text[: len(text) // 2] + "\n\nThis is a short and new sentence.", "utf-8")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.txt.gz").write_bytes(b"not compressed at all")
    (tmp_path / "e.txt").write_text("These are some words of a short text.", "utf-8")
    assert [Path(document.name).name for document in read_documents([tmp_path])] == ["a.txt", "e.txt"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2 and "c.txt is left out" in warnings[0] and "d.txt.gz is left out" in warnings[1]
    assert [Path(document.name).name for document in read_documents([tmp_path], min_words=20)] == ["a.txt"]
    for paths, message in (([tmp_path / "none"], "no such file or folder"), ([tmp_path / "c.txt"], "no document")):
        with pytest.raises(InputError, match=message):
            read_documents(paths)


# cloze questions


@pytest.mark.parametrize("mark_gap", [False, True])
def test_cloze_questions_can_be_answered(mark_gap: bool) -> None:
    document = Document("one", make_text(1, 60))
    questions = ask(document, 12, random.Random(0), mark_gap)
    assert [GAP in question.text.split() for question in questions] == [mark_gap] * 12
    if not mark_gap:  # the same but for the mark
        marked = ask(document, 12, random.Random(0))
        assert [q.text.split() for q in questions] == [[w for w in q.text.split() if w != GAP] for q in marked]
        return
    assert questions == ask(document, 12, random.Random(0), True) and len(questions) == 12
    kept = total = 0
    for number, question in enumerate(questions):
        (answer, start), context = question.answers[0], question.context
        assert context == document.text and context[start : start + len(answer)] == answer
        assert 1 <= len(answer.split()) <= 3 and not FUNCTION_WORDS & set(answer.lower().split())
        assert number / 12 <= start / len(context) < (number + 1.5) / 12
        (sentence,) = (context[a:b] for a, b in sentence_spans(context) if a <= start < b)
        words = question.text.split()
        assert words.count(GAP) == 1 and answer not in words
        pattern = ".*".join(re.escape(answer if word == GAP else word) for word in words)
        assert re.search(pattern, sentence)  # the rest of the sentence, in its order
        kept, total = kept + len(words) - 1, total + len(sentence.split()) - len(answer.split())
    assert abs(kept / total - (1 - DROPPED)) < 0.1


def test_what_may_be_left_out() -> None:
    words = 'Here the red fox, not "the Red dog", saw (green) fields.'.split()
    spans = [" ".join(words[first:behind]) for first, behind in answer_spans(words)]
    assert spans == ["fox,", 'dog",', "saw", "fields."]


def test_sentences() -> None:
    text = 'One is here. "Two is there!" Three e.g. this\nFour'
    found = [text[start:end] for start, end in sentence_spans(text)]
    assert found == ["One is here.", '"Two is there!', "Three e.g. this", "Four"]


# training


def test_one_window_has_the_answer() -> None:
    sampler = Sampler([Document(str(seed), make_text(seed, 40)) for seed in range(3)], seed=0)
    for example in (sampler.draw(50) for _ in range(100)):
        assert len(example.windows) == 1 and example.answer is not None


def test_training_windows() -> None:
    sampler = Sampler([Document(str(seed), make_text(seed, 40)) for seed in range(3)], seed=0, others=1)
    examples = [sampler.draw(50) for _ in range(300)]
    answered = [example for example in examples if example.answer]
    assert 0.85 < len(answered) / len(examples) < 0.95
    for example in examples:
        assert [len(window.split()) for window in example.windows] == [50, 50]
    ends = []
    for example in answered:
        (text,) = (document.text for document in sampler.documents if example.windows[0] in document.text)
        (first, last), (other, other_last) = ((text.index(w), text.index(w) + len(w)) for w in example.windows)
        place = first + example.answer[0]
        (sentence,) = (span for span in sentence_spans(text) if span[0] <= place < span[1])
        assert first <= sentence[0] and sentence[1] <= last
        assert other_last <= sentence[0] or sentence[1] <= other
        answer = example.windows[0][slice(*example.answer)]
        assert answer in text[slice(*sentence)] and answer not in example.question.split()
        ends.append((sentence[0] == first > 0, sentence[1] == last < len(text)))
    assert all(sum(side) > 2 for side in zip(*ends, strict=True))  # anywhere in the window, up to both its ends


def test_the_loss_is_one_softmax_over_all_windows(head) -> None:
    model, tokenizer = head
    examples = [Sampler([Document("a", make_text(0, 40))], seed=seed, others=1).draw(40) for seed in range(3)]
    examples[2] = type(examples[2])(examples[2].question, examples[2].windows, None)
    expected = []
    for example in examples:
        logits, targets = ([], []), ([], [])
        for number, window in enumerate(example.windows):
            rows = tokenizer(example.question, window, return_offsets_mapping=True, return_tensors="pt")
            offsets = rows.pop("offset_mapping")[0].tolist()
            with torch.no_grad():
                outputs = model(**rows)
            for place, part in enumerate(rows.sequence_ids(0)):
                if place == 0 or part == 1:
                    start, end = offsets[place]
                    for side, out in enumerate((outputs.start_logits, outputs.end_logits)):
                        logits[side].append(out[0, place])
                        at = example.answer and (start, end)[side] == example.answer[side] and number == 0 and place
                        targets[side].append(bool(at) if example.answer else place == 0)
        for side in range(2):
            scores = torch.stack(logits[side]).log_softmax(0)
            expected.append(-scores[torch.tensor(targets[side])].logsumexp(0))
    with torch.no_grad():
        assert abs(cloze_loss(model, tokenizer, examples) - torch.stack(expected).mean()) < 1e-4


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
    plain = Reader("", converted, 1024).read(short)
    for found, expected in zip(reader.read(short), plain, strict=True):
        assert (found - expected).abs().max() < 1e-4
    long = encode_question(tokenizer, "The server?", make_text(5, 12), 1024).inputs
    changed = {**long, "input_ids": long["input_ids"].clone()}
    changed["input_ids"][0, 2] = long["input_ids"][0, -2]  # of the question
    difference = (reader.read(long)[0] - reader.read(changed)[0]).abs()
    assert (difference > 1e-6).all()  # every token sees it
    padded = {name: torch.nn.functional.pad(x, (0, 7)) for name, x in long.items()}
    assert (reader.read(padded)[0][:, :-7] - reader.read(long)[0]).abs().max() < 1e-5
    assert converted.config.num_global_tokens == 1 and converted.config.pool_with_global


def test_windows_are_read_in_batches_with_the_same_result(head) -> None:
    model, tokenizer = head
    inputs = encode_question(tokenizer, "The server?", make_text(6, 20), 60, 20).inputs
    together = Reader("", model, 60, 20, batch_size=100).read(inputs)
    for found, expected in zip(Reader("", model, 60, 20, batch_size=3).read(inputs), together, strict=True):
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
