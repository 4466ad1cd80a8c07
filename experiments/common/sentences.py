"""Sentences of prose."""

import re

MIN_WORDS, MAX_WORDS = 10, 40  # of a sentence
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z0-9])|\n+")
PLAIN_WORD = re.compile(r"[(\"']?[A-Za-z]+(?:['-][A-Za-z]+)*[)\"']*[.,;:!?]?[)\"']*$")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the first character of each sentence, and the one behind it; sentences end at line breaks, too."""
    ends = [(match.start(), match.end()) for match in SENTENCE_END.finditer(text)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


def usable_sentences(text: str) -> list[tuple[int, int]]:
    """Return the spans of the sentences to ask about: of plain words, of sensible length, and only once in the text."""
    found = []
    for start, stop in sentence_spans(text):
        words = text[start:stop].split()
        plain = sum(bool(PLAIN_WORD.match(word)) for word in words)
        is_sentence = text[start].isupper() and text[stop - 1] in ".!?"
        if MIN_WORDS <= len(words) <= MAX_WORDS and is_sentence and plain >= 0.8 * len(words):
            found.append((start, stop))
    return [(start, stop) for start, stop in found if text.count(text[start:stop]) == 1]
