"""Fine-tune a model on a task of LexGLUE (arXiv 2110.00976): legal documents, micro- and macro-F1."""

import argparse
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.finetuning import make_parser, parse_options, run_script
from experiments.input_error import InputError
from experiments.text_data import Labels, check_texts, find_labels, given_files, load_splits, numbered

if TYPE_CHECKING:
    from datasets import Dataset

HUB_DATASET = "coastalcph/lex_glue"


@dataclass(frozen=True)
class Task:
    """A task of LexGLUE.

    Args:
        text_column: of the documents.
        label_column: of the labels.
        is_list: a document is a list of paragraphs.
        is_multi: a document has any number of labels; "none" then counts as one more class in F1, as in LexGLUE.
    """

    text_column: str = "text"
    label_column: str = "label"
    is_list: bool = False
    is_multi: bool = False


TASKS = {
    "ecthr_a": Task(label_column="labels", is_list=True, is_multi=True),
    "ecthr_b": Task(label_column="labels", is_list=True, is_multi=True),
    "scotus": Task(),
    "ledgar": Task(),
    "unfair_tos": Task(label_column="labels", is_multi=True),
    "case_hold": Task(text_column="context"),
}
ENDINGS = "endings"  # case_hold: the holdings to choose from


def make_options() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = make_parser(__doc__, ("fields of the task, not for lists",), {})
    parser.add_argument(
        "--task",
        required=True,
        choices=sorted(TASKS),
        help=f"without local files, {HUB_DATASET} is taken; files have the columns of its tasks",
    )
    return parser


def work(args: argparse.Namespace) -> None:
    """Fine-tune as the options say."""
    from experiments.classification.classifier import classification_metrics, fine_tune_classifier

    task = TASKS[args.task]
    if args.task == "case_hold":
        splits = load_splits(args, (task.text_column, ENDINGS, task.label_column))
        check_choices(splits, task)
        metrics = classification_metrics(is_multi=False)
        fine_tune_classifier(args, splits, tokenize_choices, "AutoModelForMultipleChoice", {}, metrics)
        return
    splits = load_splits(args, (task.label_column, task.text_column))
    check_texts(splits, task.text_column, task.is_list)
    labels = find_labels(splits, task.label_column, task.is_multi)
    metrics = classification_metrics(task.is_multi, counts_no_label=task.is_multi)
    head_fields = {"num_labels": len(labels.names), **labels.config_fields}
    tokenize = make_tokenize(task, labels)
    fine_tune_classifier(args, splits, tokenize, "AutoModelForSequenceClassification", head_fields, metrics)


def make_tokenize(task: Task, labels: Labels) -> Any:
    """Give the function that makes inputs of documents; paragraphs are joined by the separator token."""

    def tokenize(tokenizer: Any, length: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = columns[task.text_column]
        if task.is_list:
            texts = [f" {tokenizer.sep_token} ".join(paragraphs) for paragraphs in texts]
        tokens = tokenizer(texts, truncation=True, max_length=length)
        return {**tokens, "labels": [labels.encode(value) for value in columns[task.label_column]]}

    return tokenize


def check_choices(splits: "dict[str, Dataset]", task: Task) -> None:
    """Raise InputError unless all rows have as many endings, and the label is the number of one."""
    check_texts(splits, task.text_column)
    check_texts(splits, ENDINGS, is_list=True)
    count = len(splits["train"][ENDINGS][0])
    for where, endings in numbered(splits, ENDINGS):
        if len(endings) != count or not count:
            raise InputError(f"{where}: as many endings as in the first row ({count}) are expected, got {len(endings)}")
    for where, label in numbered(splits, task.label_column):
        if not isinstance(label, int) or not 0 <= label < count:
            raise InputError(f"{where}: the number of an ending, 0 to {count - 1}, is expected, got {label!r}")


def tokenize_choices(tokenizer: Any, length: int, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Make inputs of each context with each of its endings, (rows, endings, tokens)."""
    count = len(columns[ENDINGS][0])
    contexts = list(chain.from_iterable([context] * count for context in columns["context"]))
    tokens = tokenizer(contexts, list(chain.from_iterable(columns[ENDINGS])), truncation=True, max_length=length)
    rows = {name: [values[i : i + count] for i in range(0, len(values), count)] for name, values in tokens.items()}
    return {**rows, "labels": columns["label"]}


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    args = parse_options(make_options(), {}, argv)
    if not args.dataset and not given_files(args):
        args.dataset, args.dataset_config = HUB_DATASET, args.task
    return run_script(work, args, "run_lexglue.py")


if __name__ == "__main__":
    sys.exit(main())
