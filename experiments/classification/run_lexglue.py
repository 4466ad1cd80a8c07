"""Fine-tune a model on a task of LexGLUE (arXiv 2110.00976): legal documents, micro- and macro-F1."""

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.data import check_texts, load_splits, numbered
from experiments.common.errors import InputError
from experiments.common.finetuning_options import check_options, make_parser, parse_options
from experiments.common.labels import find_labels
from experiments.common.models import Loaded
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

HUB_DATASET = "coastalcph/lex_glue"


@dataclass(frozen=True)
class LegalTask:
    """A task of LexGLUE."""

    text_column: str = "text"
    label_column: str = "label"
    is_list: bool = False  # a document is a list of paragraphs
    is_multi: bool = False  # a document has any number of labels; F1 counts "none" as one more class


TASKS = {
    "ecthr_a": LegalTask(label_column="labels", is_list=True, is_multi=True),
    "ecthr_b": LegalTask(label_column="labels", is_list=True, is_multi=True),
    "scotus": LegalTask(),
    "ledgar": LegalTask(),
    "unfair_tos": LegalTask(label_column="labels", is_multi=True),
    "case_hold": LegalTask(text_column="context"),
}
PRESETS = {name: {"dataset": HUB_DATASET, "dataset_config": name} for name in TASKS}
ENDINGS = "endings"  # case_hold: the holdings to choose from


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = make_parser(str(__doc__), ("fields of the task, not for lists",), {})
    text = f"without local files, {HUB_DATASET} is loaded; files have the columns of its tasks"
    parser.add_argument("--task", required=True, choices=sorted(TASKS), help=text)
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    check_options(args)
    task = TASKS[args.task]
    if args.task == "case_hold":
        return fine_tune_choice(args, task)
    splits = load_splits(args, (task.label_column, task.text_column))
    check_texts(splits, task.text_column, task.is_list)
    labels = find_labels(splits, task.label_column, task.is_multi)

    from experiments.classification.classifier import fine_tune_classifier

    return fine_tune_classifier(args, splits, task.text_column, task.label_column, labels, task.is_multi)


def fine_tune_choice(args: argparse.Namespace, task: LegalTask) -> None:
    """Fine-tune a model to choose among endings."""
    splits = load_splits(args, (task.text_column, ENDINGS, task.label_column))
    check_choices(splits, task)

    from experiments.classification.classifier import classification_metrics
    from experiments.common.finetuning import Task, cross_entropy, fine_tune

    def make_tokenize(loaded: Loaded) -> Any:
        return partial(tokenize_choices, loaded.tokenizer, loaded.max_sequence_length)

    metrics = classification_metrics(is_multi=False)
    fine_tune(args, splits, Task("AutoModelForMultipleChoice", make_tokenize, lambda tokenizer: metrics, cross_entropy))


def check_choices(splits: "dict[str, Dataset]", task: LegalTask) -> None:
    """Raise InputError unless all rows have the same number of endings, and the label is the number of one."""
    check_texts(splits, task.text_column)
    check_texts(splits, ENDINGS, is_list=True)
    count = len(splits["train"][ENDINGS][0])
    for where, endings in numbered(splits, ENDINGS):
        if len(endings) != count or not count:
            raise InputError(f"{where}: as many endings as in the first row ({count}) are expected, got {len(endings)}")
    for where, label in numbered(splits, task.label_column):
        if not isinstance(label, int) or not 0 <= label < count:
            raise InputError(f"{where}: the number of an ending, 0 to {count - 1}, is expected, got {label!r}")


def tokenize_choices(
    tokenizer: "PreTrainedTokenizerBase", length: int, columns: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Return a model's inputs for each context with each of its endings, (rows, endings, tokens)."""
    count = len(columns[ENDINGS][0])
    contexts = list(chain.from_iterable([context] * count for context in columns["context"]))
    tokens = tokenizer(contexts, list(chain.from_iterable(columns[ENDINGS])), truncation=True, max_length=length)
    rows = {name: [values[i : i + count] for i in range(0, len(values), count)] for name, values in tokens.items()}
    return {**rows, "labels": columns["label"]}


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, parse_options(make_options(), PRESETS, argv, "--task"), "run_lexglue.py")


if __name__ == "__main__":
    sys.exit(main())
