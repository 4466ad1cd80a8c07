#!/usr/bin/env python3
"""Train an extractive question-answering head on a plain encoder with cloze questions, in minutes on a CPU.

A question is a sentence of the text with one to three words left out, which are the answer. The model reads the
question and a short window of the document that has the sentence. Nothing long is read.

    python train_cloze.py --initial_model PATH --text FOLDER --output FOLDER
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository: lsg and experiments

from experiments.common.errors import InputError, check_range
from experiments.common.script import run_script
from lsg.cli.arguments import OneLineParser


def make_options() -> OneLineParser:
    """Return the parser of the options."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--initial_model", required=True, metavar="PATH", help="plain encoder to start from, such as all-MiniLM-L6-v2")
    text = "files and folders with text to train on (.txt, .rst, .md, .pod, .html, also with .gz)"
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text)
    add("--output", type=Path, required=True, metavar="FOLDER", help="for the trained checkpoint")
    add("--steps", type=int, default=200, metavar="N", help="(200)")
    add("--batch_size", type=int, default=16, metavar="N", help="questions in a step (16)")
    add("--other_windows", type=int, default=0, metavar="N", help="windows without the answer, of each question (0)")
    add("--window_tokens", type=int, default=200, metavar="N", help="most tokens in a window, with the question (200)")
    add("--unmarked", action="store_true", help="no mark stands where the answer was, also in long_documents.py")
    add("--dropout", type=float, metavar="X", help="of all kinds, in training (the checkpoint's own)")
    add("--learning_rate", type=float, default=2e-4, metavar="X", help="highest of a linear schedule (2e-4)")
    add("--seed", type=int, default=0, metavar="N", help="of the questions and the head (0)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (2)")
    return parser


def load(initial_model: str, auto_class: Any, dropout: float | None = None, **fields_of_head: int) -> tuple[Any, Any]:
    """Return a plain encoder with a head, random unless it has one, in training mode, and its tokenizer.

    Args:
        dropout: to train with; the config keeps the checkpoint's own, which is the default.

    Raises:
        ConversionError, InputError: with the reason in one line.
    """
    import torch
    from transformers import AutoTokenizer

    from experiments.common.models import load_errors
    from lsg.loading import read_config
    from lsg.model_types import find_model_type, is_lsg_config

    where, fields = f"--initial_model {initial_model}", read_config(initial_model)
    find_model_type(fields, where)
    if is_lsg_config(fields):
        raise InputError(f"{where}: a plain checkpoint is expected, this is an LSG one")
    own = {name: value for name, value in fields.items() if name.endswith(("dropout", "dropout_prob"))}
    set_fields = {} if dropout is None else dict.fromkeys(own, dropout)
    with load_errors(where):
        model = auto_class.from_pretrained(initial_model, dtype=torch.float32, **set_fields, **fields_of_head)
        tokenizer = AutoTokenizer.from_pretrained(initial_model)
    for name in set_fields:
        setattr(model.config, name, own[name])
    return model.train(), tokenizer


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint into a new folder, as a whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as around:
        part = Path(around) / "checkpoint"
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.replace(folder)


def work(args: argparse.Namespace) -> None:
    """Train, and write the checkpoint."""
    check_range(args, "steps", "batch_size", "threads", minimum=1)
    check_range(args, "other_windows", minimum=0)
    check_range(args, "window_tokens", minimum=50)
    check_range(args, "dropout", minimum=0, maximum=0.9)
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise InputError(f"--output {args.output}: it exists already; choose a new folder")
    import torch
    import transformers
    from tqdm import tqdm

    from experiments.common.documents import read_documents
    from experiments.question_answering.training import Sampler, cloze_loss, train

    torch.set_num_threads(args.threads)
    transformers.set_seed(args.seed)
    transformers.utils.logging.disable_progress_bar()  # of loading models
    model, tokenizer = load(args.initial_model, transformers.AutoModelForQuestionAnswering, args.dropout)
    documents = read_documents(args.text)
    sampler = Sampler(documents, args.seed, args.other_windows, not args.unmarked, args.window_tokens)
    print(f"{len(sampler.documents):,} documents, {len(sampler.sentences):,} sentences to ask about")
    loss_of = partial(cloze_loss, model, tokenizer, max_tokens=args.window_tokens)
    for step, loss in train(model, loss_of, sampler, args.steps, args.batch_size, args.learning_rate):
        tqdm.write(f"step {step}: loss {loss:.3f}")
    save_checkpoint(model.eval(), tokenizer, args.output)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    return run_script(work, make_options().parse_args(argv), "train_cloze.py")


if __name__ == "__main__":
    sys.exit(main())
