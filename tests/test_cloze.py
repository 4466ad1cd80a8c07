"""experiments/question_answering: documents as prose, cloze questions, and training on them."""

import gzip
import random
import re
from pathlib import Path

import pytest
import torch
from cloze_texts import make_head, make_text  # noqa: F401 (a fixture)
from helpers import initial
from transformers import AutoModelForQuestionAnswering

from experiments.common.documents import Document, Heading, make_document, read_documents
from experiments.common.errors import InputError
from experiments.common.sentences import sentence_spans
from experiments.question_answering import train_cloze
from experiments.question_answering.cloze import DROPPED, FUNCTION_WORDS, GAP, answer_spans, ask
from experiments.question_answering.training import Sampler, cloze_loss

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


SENTENCES = ("The first sentence of a page is prose.", "The second sentence of it is prose.")
HEADED = {
    ".rst": "========\n A title\n========\n\n{}\n\n:mod:`Part` *one*\n-------------\n{}\n\nThe end\n^^^^^^^\n",
    ".md": "---\nkey: value\n---\n# A title #\n{}\n\n[Part](x) `one`\n---\n{}\n\n### The end\n\n```\n# code\n```\n",
    ".pod": "=head1 NAME\nX<index>\n\nA title\n\n{}\n\n=head2 Part B<one>\n\n{}\n\n=head1 The end\n\n=cut\n",
    ".html": "<head><title>Part of a book</title></head><nav><h2>On</h2></nav><h1>A <b>title</b>\N{PILCROW SIGN}</h1>"
    "<p>{}</p><h3>Part<br>one</h3><p>{}<h2><a>The end</a></h2><script>x</script>",
}


@pytest.mark.parametrize("kind", HEADED)
def test_titles_and_headings(kind: str) -> None:
    found = make_document("name", HEADED[kind].format(*SENTENCES), kind)
    assert (found.title, found.text) == ("A title", "\n".join(SENTENCES))
    assert found.headings == (Heading("Part one", 1), Heading("The end", 2))


def test_titles_of_pages_without_a_first_heading() -> None:
    title, plain = "<head><title>In the head</title></head>", f"<p>{SENTENCE}</p><h2>A part</h2>"
    assert make_document("", title + plain, ".html").title == "In the head"
    found = make_document("", plain, ".html")
    assert (found.title, found.headings, found.text) == ("A part", (), SENTENCE)
    assert make_document("", SENTENCE, ".txt").title == ""


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


def test_longer_windows(head) -> None:
    documents = [Document("a", make_text(0, 40))]
    sampler, longer = Sampler(documents, 0), Sampler(documents, 0, max_tokens=400)
    assert (sampler.fewest, sampler.most, longer.fewest, longer.most) == (40, 120, 80, 240)
    example = longer.draw(240)
    behind = next(i for i in range(3, 999) if len(head[1](example.question, example.windows[0][:i])["input_ids"]) > 60)
    late = type(example)(example.question, example.windows, (behind + 200, behind + 210))
    none = type(example)(example.question, example.windows, None)
    with torch.no_grad():
        losses = [cloze_loss(*head, [one], max_tokens=60) for one in (late, none)]
        assert losses[0] == losses[1] != cloze_loss(*head, [late], max_tokens=400)  # the answer was cut off


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


def test_dropout_is_the_checkpoints_unless_it_is_set() -> None:
    for given, expected in ((None, 0.1), (0.0, 0.0), (0.5, 0.5)):
        model, _ = train_cloze.load(str(initial("bert")), AutoModelForQuestionAnswering, given)
        found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        assert found == {expected} and model.training and model.config.hidden_dropout_prob == 0.1
