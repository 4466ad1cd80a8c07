"""Made-up sentences with a query each, and the documents that hide them. Pure functions on token ids."""

import random
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from experiments.extrapolation.common import InputError

# (sentence to hide, query): about nothing that documentation of software tells
NEEDLES = (
    ("The lighthouse on Varn Island was painted turquoise by its keeper in 1927.", "What colour is the lighthouse?"),
    ("Grandmother Odile puts crushed juniper berries into her plum jam.", "What is the secret of the plum jam recipe?"),
    (
        "The violin stolen from the Brennick museum was found inside a beehive.",
        "Where was the missing violin discovered?",
    ),
    ("A herd of reindeer blocked the night train to Kaldvik for six hours.", "Why was the train delayed?"),
    ("The mayor of Tessaly promised a skating rink made of recycled bottles.", "What did the mayor want to build?"),
    ("Doctor Imre cured the parrot of its cough with warm chamomile tea.", "How was the sick bird treated?"),
    ("The wreck of the schooner Marigold lies under forty metres of water.", "How deep is the sunken ship?"),
    ("Every spring the monks of Saint Aldo sell candles that smell of pine.", "What do the monks sell?"),
    ("The goalkeeper of Rovena United scored from her own penalty area.", "Who scored the unusual football goal?"),
    ("Farmers near Lake Osk grow purple potatoes in volcanic soil.", "Which vegetables are grown near the lake?"),
    ("The astronomer named the new comet after her late dog, Biscuit.", "After whom was the comet named?"),
    ("Rain of small frogs surprised the wedding guests at Castle Dunmor.", "What happened during the wedding?"),
    ("The elephant at the Lindow zoo has learned to paint sunflowers.", "Which zoo animal makes pictures?"),
    ("A tunnel under the old bakery leads to the cellar of the bank.", "How did the robbers reach the bank?"),
    ("The Queen of Halmar wore a crown woven out of straw.", "What was the royal crown made of?"),
    ("Glaciers in the Torrin valley have retreated by nine kilometres.", "How far did the ice melt back?"),
)


def make_haystacks(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, count: int, size: int, seed: int
) -> list[list[list[int]]]:
    """Shuffle the texts and cut them into `count` haystacks of at least `size` tokens, each a list of paragraphs.

    Raises:
        InputError: there is not enough text.
    """
    texts = list(texts)
    random.Random(seed).shuffle(texts)
    haystacks: list[list[list[int]]] = [[]]
    total = 0
    for text in texts:
        for line in text.splitlines():
            if not line.strip():
                continue
            haystacks[-1].append(
                tokenizer(line, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            )
            total += len(haystacks[-1][-1])
            if sum(map(len, haystacks[-1])) >= size:
                haystacks.append([])
            if len(haystacks) > count:
                return haystacks[:count]
    raise InputError(f"the text has {total} tokens, {count} documents of {size} are needed: give more text (--text)")


def hide(haystack: list[list[int]], needle: list[int], size: int, depth: float) -> list[int]:
    """Hide a needle at the end of a paragraph, the nearest to `depth` (0 to 1), in a document of `size` tokens."""
    room = size - len(needle)
    tokens: list[int] = []
    ends = [0]
    for paragraph in haystack:
        tokens += paragraph
        ends.append(min(len(tokens), room))
        if len(tokens) >= room:
            break
    tokens = tokens[:room]
    place = min(ends, key=lambda end: abs(end - depth * room))
    return tokens[:place] + needle + tokens[place:]


def split_chunks(tokens: list[int], size: int) -> list[list[int]]:
    """Cut a document into chunks of `size` tokens; a quarter overlaps, so that a needle is whole in one of them."""
    step = size - size // 4
    return [tokens[start : start + size] for start in range(0, max(len(tokens) - size // 4, 1), step)]
