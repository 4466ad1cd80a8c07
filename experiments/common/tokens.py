"""Texts as token ids, and documents of a given number of tokens."""

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from experiments.common.documents import Document
from experiments.common.errors import InputError

AROUND = 2  # special tokens around a document, or a window of it: start and end


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of each text, without special tokens and however long it is."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


def special_token(tokenizer: PreTrainedTokenizerBase, *names: str) -> int:
    """Return the id of the first of these special tokens that the tokenizer has.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if getattr(tokenizer, f"{name}_token_id") is not None:
            return getattr(tokenizer, f"{name}_token_id")
    raise InputError(f"the tokenizer has no {' or '.join(names)} token: an encoder's is expected")


def choose_documents(
    documents: list[Document], tokenizer: PreTrainedTokenizerBase, length: list[int], count: int, seed: int
) -> list[Document]:
    """Return at most `count` documents, drawn at random.

    Args:
        length: least and largest number of tokens of a document with its start and end token; others are left out.

    Raises:
        InputError: there is no such document.
    """
    documents = random.Random(seed).sample(documents, len(documents))
    found: list[Document] = []
    for document in documents:
        if len(found) < count and length[0] <= len(encode([document.text], tokenizer)[0]) + AROUND <= length[1]:
            found.append(document)
    if not found:
        raise InputError(f"--text: none of {len(documents)} documents has {length[0]} to {length[1]} tokens")
    return found
