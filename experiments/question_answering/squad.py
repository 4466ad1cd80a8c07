"""Questions about documents, read from and written as JSON of SQuAD's format, versions 1 and 2."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.common.errors import InputError
from experiments.common.results import write_json
from lsg.errors import read_json

JOIN = "\n"  # between the passages of an entry


@dataclass(frozen=True)
class Question:
    """A question about a document.

    Args:
        name: its id.
        text: the question.
        context: the document.
        answers: the accepted answers, each with the character of the context at which it begins; none if the context
            does not answer the question.
        document: the name of the document; questions about one document are not independent.
    """

    name: str
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]
    document: str


def read_squad(file: Path, passages: str = "separate") -> list[Question]:
    """Read the questions of a SQuAD file.

    Args:
        passages: "join" asks about all paragraphs of an entry together, "separate" about each one.

    Raises:
        InputError: not such a file, with the place in it, or one without questions.
    """
    try:
        value = read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"--questions {file}: not readable as JSON: {error}") from error
    questions: list[Question] = []
    for number, entry in enumerate(field(value, "data", list, f"--questions {file}")):
        where = f"--questions {file}: data[{number}]"
        paragraphs = field(entry, "paragraphs", list, where)
        places = [f"{where}.paragraphs[{i}]" for i in range(len(paragraphs))]
        contexts = [field(p, "context", str, place) for p, place in zip(paragraphs, places, strict=True)]
        title = str(entry.get("title", number))
        for i, paragraph in enumerate(paragraphs):
            before = sum(len(context) + len(JOIN) for context in contexts[:i]) if passages == "join" else 0
            context = JOIN.join(contexts) if passages == "join" else contexts[i]
            for j, item in enumerate(field(paragraph, "qas", list, places[i])):
                place = f"{places[i]}.qas[{j}]"
                answers = read_answers(item, contexts[i], place)
                moved = tuple((text, before + start) for text, start in answers)
                name = str(item.get("id", len(questions)))
                questions.append(Question(name, field(item, "question", str, place), context, moved, title))
    if not questions:
        raise InputError(f"--questions {file}: there are no questions in it")
    return questions


def read_answers(item: Any, context: str, where: str) -> list[tuple[str, int]]:
    """Return the answers of an item of "qas", each with its first character in the paragraph.

    Raises:
        InputError: an item without answers that is not marked as impossible, or one that its context does not contain.
    """
    answers = field(item, "answers", list, where)
    if item.get("is_impossible", False):
        return []
    if not answers:
        raise InputError(f"{where}.answers: at least one answer is expected, or is_impossible = true")
    found = []
    for number, answer in enumerate(answers):
        place = f"{where}.answers[{number}]"
        text, start = field(answer, "text", str, place), field(answer, "answer_start", int, place)
        if start < 0 or not text or context[start : start + len(text)] != text:
            raise InputError(f"{place}: {text!r} does not begin at character {start} of the context")
        found.append((text, start))
    return found


def field(value: Any, name: str, kind: type, where: str) -> Any:
    """Return a field of an object; raise InputError if it is missing, or of another type."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        words = {list: "a list", str: "a string", int: "a number"}
        given = "nothing" if found is None else type(found).__name__
        raise InputError(f"{where}: SQuAD's format has {words[kind]} named {name!r} here, found {given}")
    return found


def write_squad(questions: list[Question], file: Path) -> None:
    """Write questions as SQuAD JSON, version 2: an entry for each document."""
    data: dict[tuple[str, str], dict[str, Any]] = {}
    for question in questions:
        empty = {"title": question.document, "paragraphs": [{"context": question.context, "qas": []}]}
        entry = data.setdefault((question.document, question.context), empty)
        answers = [{"text": text, "answer_start": start} for text, start in question.answers]
        item = {"id": question.name, "question": question.text, "answers": answers, "is_impossible": not answers}
        entry["paragraphs"][0]["qas"].append(item)
    write_json(file, {"version": "v2.0", "data": list(data.values())})
