"""Made-up texts to ask about, and a tiny model that answers, for the tests of question answering."""

import random

import pytest
import torch
from helpers import initial
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

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


@pytest.fixture(scope="module", name="head")
def make_head():
    """A tiny question-answering model whose head is not constant, and its tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(initial("bert")).eval()
    model.qa_outputs.weight.data.normal_()
    return model, AutoTokenizer.from_pretrained(initial("bert"))
