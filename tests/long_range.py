"""Made-up documents whose label depends on words far apart, and the files that the fine-tuning scripts read."""

import json
import random
import sys
from pathlib import Path

TOPICS = ("true error name file".split(), "model tensor input output".split())
FILLER = "the function returns value of array with index for each element and method class object".split()
ENDS = 20  # words of the opening, and of the closing


def matching_documents(count: int, words: tuple[int, int], seed: int) -> list[dict]:
    """Documents of so many words, from to, labelled by whether the topic of the first is that of the last ones.

    Either topic alone tells nothing of the label.
    """
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        first, last = rng.randrange(2), rng.randrange(2)
        middle = rng.choices(FILLER, k=rng.randint(*words) - 2 * ENDS)
        parts = [*rng.choices(TOPICS[first], k=ENDS), *middle, *rng.choices(TOPICS[last], k=ENDS)]
        rows.append({"text": " ".join(parts), "label": "same" if first == last else "different"})
    return rows


def write_rows(file: Path, rows: list[dict]) -> Path:
    """Write a .jsonl file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_long_range_task(folder: Path, train: int = 800, longest: int = 400, test: int = 200) -> None:
    """Write train.jsonl, of documents of all lengths, and test.jsonl, whose last topic lies beyond token 512.

    Args:
        train, test: documents in the two files.
        longest: words of the longest document to train with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", matching_documents(train, (44, longest), seed=0))
    write_rows(folder / "test.jsonl", matching_documents(test, (540, 640), seed=1))


if __name__ == "__main__":
    write_long_range_task(Path(sys.argv[1]))
