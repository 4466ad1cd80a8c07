"""Made-up sentences with a query each, and the documents that contain them. Pure functions on token ids."""

import random

from transformers import PreTrainedTokenizerBase

from experiments.common.errors import InputError
from experiments.common.masked_lm import encode

# (sentence to hide, query): about topics that do not occur in documentation of software
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
    texts: list[str], tokenizer: PreTrainedTokenizerBase, count: int, size: int, seed: int
) -> list[list[list[int]]]:
    """Return `count` haystacks of at least `size` tokens, each a list of paragraphs of the shuffled texts.

    Raises:
        InputError: there is not enough text.
    """
    texts = list(texts)
    random.Random(seed).shuffle(texts)
    haystacks: list[list[list[int]]] = [[]]
    total = 0
    for text in texts:
        for paragraph in encode([line for line in text.splitlines() if line.strip()], tokenizer):
            haystacks[-1].append(paragraph)
            total += len(paragraph)
            if sum(map(len, haystacks[-1])) >= size:
                haystacks.append([])
            if len(haystacks) > count:
                return haystacks[:count]
    raise InputError(f"the text has {total} tokens, {count} documents of {size} are needed: give more text (--text)")


def hide(haystack: list[list[int]], needle: list[int], size: int, depth: float) -> list[int]:
    """Return a document of `size` tokens with the needle behind the paragraph that ends nearest to `depth` (0 to 1)."""
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
    """Cut a document into chunks of `size` tokens that overlap by a quarter, so that one contains the whole needle."""
    step = size - size // 4
    return [tokens[start : start + size] for start in range(0, max(len(tokens) - size // 4, 1), step)]
