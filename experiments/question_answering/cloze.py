"""Questions without a person who asks: a sentence of a document with a gap, where the answer is what fills it."""

import random
import re
from collections.abc import Iterator

from experiments.common.documents import Document
from experiments.common.sentences import usable_sentences
from experiments.question_answering.squad import Question

GAP = "_"
MAX_ANSWER = 3  # words
DROPPED = 0.3  # of the other words
PUNCTUATION = ".,;:!?\"'()"
CONTENT_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*$")
FUNCTION_WORDS = set(
    """a about above after again all also although always an and another any are as at be because been before being
    below between both but by can cannot could did do does doing done down during each either even every few for from
    further had has have having he her here his how however i if in into is it its itself just like made make may might
    more most much must neither no nor not now of off on once one only onto or other our out over own per quite rather
    same shall she should since so some such than that the their them then there therefore these they this those
    through thus to too two under unless until up upon us use used using very via was way we were what when where
    whether which while who whom whose why will with within without would yet you your""".split()
)


def answer_spans(words: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the runs of words (first, behind the last) that may be left out: content words that occur nowhere else."""
    bare = [word.strip(PUNCTUATION) for word in words]
    lower = [word.lower() for word in bare]
    is_content = [
        bool(CONTENT_WORD.match(word)) and word.lower() not in FUNCTION_WORDS and lower.count(word.lower()) == 1
        for word in bare
    ]
    for first in range(1, len(words)):
        for behind in range(first + 1, min(first + MAX_ANSWER, len(words)) + 1):
            is_phrase = " ".join(words[first:behind]).rstrip(PUNCTUATION) == " ".join(bare[first:behind])
            if is_phrase and all(is_content[first:behind]):
                yield first, behind


def make_question(
    document: Document, span: tuple[int, int], rng: random.Random, mark_gap: bool = True
) -> Question | None:
    """Return a question about a sentence of a document; None if no part of the sentence can be the answer.

    Up to three words in a row are left out, which are the answer. Of the other words, some are dropped, too. The
    document keeps the sentence as it is. Unless `mark_gap` is off, a mark stands where the answer was.
    """
    start, stop = span
    words = list(re.finditer(r"\S+", document.text[start:stop]))
    spans = list(answer_spans([word[0] for word in words]))
    if not spans:
        return None
    size = rng.choice(sorted({behind - first for first, behind in spans}))
    first, behind = rng.choice([span for span in spans if span[1] - span[0] == size])
    begin, end = start + words[first].start(), start + words[behind - 1].end()
    answer = document.text[begin:end].rstrip(PUNCTUATION)
    gap = [GAP] if mark_gap else []
    text = " ".join([*drop(words[:first], rng), *gap, *drop(words[behind:], rng)])
    return Question(f"{document.name}:{begin}", text, document.text, ((answer, begin),), document.name)


def drop(words: list[re.Match[str]], rng: random.Random) -> list[str]:
    """Return the words without some of them."""
    return [word[0] for word in words if rng.random() >= DROPPED]


def ask(document: Document, count: int, rng: random.Random, mark_gap: bool = True) -> list[Question]:
    """Return up to `count` questions about a document, spread evenly over it; see `make_question`."""
    spans = usable_sentences(document.text)
    size = len(document.text) / count
    questions = []
    for number in range(count):
        own = [span for span in spans if number * size <= span[0] < (number + 1) * size]
        rng.shuffle(own)
        made = (make_question(document, span, rng, mark_gap) for span in own)
        questions += [question for question in made if question is not None][:1]
    return questions
