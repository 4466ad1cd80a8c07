"""Natural queries about documents, and the documents without what is asked."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from experiments.common.documents import Document
from experiments.common.sentences import sentence_spans, usable_sentences

KINDS = ("title", "first paragraph", "heading", "sentence")
EACH = 3  # headings of a document that are asked, and sentences
LONGEST_HEADING, LONGEST_TITLE = 20, 200  # words, characters
SHORTEST_HEADING = 3  # words; shorter ones, such as "Overview", name no subject
PARAGRAPH_WORDS = range(10, 101)  # of a first paragraph that is asked
NUMBER = re.compile(r"^(?:(?:Chapter|Appendix)\s)?(?:\d+|[A-Z])(?:\.\d+)*\.\s+")  # in front of a heading

Item = TypeVar("Item")


@dataclass(frozen=True)
class Query:
    """A query.

    Args:
        kind: one of `KINDS`.
        text: what is asked.
        document: the number of the document that it is about.
        place: where in the document it stood, from 0 to 1; None for titles and first paragraphs.
    """

    kind: str
    text: str
    document: int
    place: float | None = None


@dataclass(frozen=True)
class Page:
    """A document to be found: its title, and its text without headings, first paragraph and the sentences asked."""

    title: str
    text: str


def without_number(heading: str) -> str:
    """Return a heading without the number of its section."""
    return NUMBER.sub("", heading)


def has_title(document: Document) -> bool:
    """Return whether a document has a title of sensible length."""
    return 0 < len(without_number(document.title)) <= LONGEST_TITLE


def count_owners(documents: list[Document]) -> Counter[str]:
    """Return in how many documents each title, heading, paragraph and sentence stands, in lower case."""
    owners = Counter[str]()
    for document in documents:
        texts = {without_number(document.title), *(without_number(heading.text) for heading in document.headings)}
        for paragraph in document.text.splitlines():
            texts |= {paragraph, *(paragraph[start:stop] for start, stop in sentence_spans(paragraph))}
        owners.update({text.lower() for text in texts})
    return owners


def spread(candidates: Iterable[tuple[float, Item]], rng: random.Random) -> list[tuple[float, Item]]:
    """Return at most `EACH` candidates, each a place from 0 to 1 and an item: one from each part of the document."""
    parts: list[list[tuple[float, Item]]] = [[] for _ in range(EACH)]
    for place, item in candidates:
        parts[min(int(place * EACH), EACH - 1)].append((place, item))
    return [rng.choice(part) for part in parts if part]


def places_of_headings(document: Document) -> Iterator[tuple[float, str]]:
    """Yield the headings that can be asked, each with its place."""
    sizes = [len(paragraph) for paragraph in document.text.splitlines()]
    for heading in document.headings:
        text = without_number(heading.text)
        is_title = text.lower() == without_number(document.title).lower()
        if SHORTEST_HEADING <= len(text.split()) <= LONGEST_HEADING and not is_title:
            yield sum(sizes[: heading.place]) / sum(sizes), text


def cut_out(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text without these parts, and without lines that are empty then."""
    for start, stop in sorted(spans, reverse=True):
        text = text[:start] + text[stop:]
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def make_queries(documents: list[Document], seed: int) -> tuple[list[Page], list[Query]]:
    """Return the documents without what is asked, and the queries.

    What stands in another document, too, is not asked.

    Args:
        documents: with titles.
        seed: of the choice of headings and sentences.
    """
    rng, owners = random.Random(seed), count_owners(documents)
    pages, queries = list[Page](), list[Query]()
    for number, document in enumerate(documents):
        first, *others = document.text.splitlines()
        body = "\n".join(others)
        places = [(start / len(body), (start, stop)) for start, stop in usable_sentences(body)]
        sentences = spread([(x, span) for x, span in places if owners[body[slice(*span)].lower()] == 1], rng)
        headings = spread([(x, text) for x, text in places_of_headings(document) if owners[text.lower()] == 1], rng)
        title = without_number(document.title)
        asked = [Query("title", title, number)]
        asked += [Query("first paragraph", first, number)] if len(first.split()) in PARAGRAPH_WORDS else []
        asked += [Query("heading", text, number, place) for place, text in headings]
        asked += [Query("sentence", body[slice(*span)], number, place) for place, span in sentences]
        queries += [query for query in asked if owners[query.text.lower()] == 1]
        pages.append(Page(title, cut_out(body, [span for _, span in sentences])))
    return pages, queries
