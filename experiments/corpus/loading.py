"""Load a converted model with the head of a task, and tell it from all others."""

import argparse
import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from experiments.common.errors import InputError
from experiments.common.models import check_complete, load_errors, load_unchanged, tokens_read
from experiments.corpus.tasks import TASKS, Answer, Task
from lsg.hub_options import HubOptions
from lsg.loading import is_reportable, load_model, load_tokenizer, read_config
from lsg.model_types import find_model_type, is_lsg_config


def load_task(args: argparse.Namespace, device: str) -> Task:
    """Return the task with its model on a device.

    Args:
        args: the script's options.
        device: "cpu" or "cuda".

    Raises:
        InputError, ConversionError: no LSG checkpoint, or none for this task; with the reason in one line.
    """
    logging.disable_progress_bar()
    task_class = TASKS[args.task]
    model: Any
    model, tokenizer = load_lsg(args, task_class.auto_class)
    readable = tokens_read(model.config, tokenizer)
    limit = args.max_sequence_length or readable
    if limit > readable:
        raise InputError(f"--max_sequence_length: {limit} asked for, but {args.model} reads {readable} tokens")
    if not tokenizer.is_fast:
        raise InputError(f"{args.model}: a fast tokenizer is expected, this is {type(tokenizer).__name__}")
    own: Any = (args.question, args.max_answer_tokens) if task_class is Answer else ()
    return task_class(model.to(device, getattr(torch, args.dtype)).eval(), tokenizer, limit, *own)


def load_lsg(args: argparse.Namespace, auto_class: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return an LSG model and its tokenizer: the folder's own code with --trust_remote_code, else that of lsg."""
    fields = read_config(args.model)
    model_type = find_model_type(fields, args.model)
    if not is_lsg_config(fields):
        raise InputError(f"--model {args.model}: an LSG checkpoint is expected, this is a plain one; convert it first")
    if auto_class not in model_type.auto_classes:
        raise InputError(f"--task {args.task}: model type {model_type.name} has no {auto_class}")
    model: Any
    if args.trust_remote_code:
        model, tokenizer, missing = load_unchanged(args, auto_class, fields, {})
    else:
        model_class = model_type.auto_classes[auto_class]
        with load_errors(args.model):
            config: Any = model_type.config_class.from_pretrained(args.model)
        model, info = load_model(args.model, model_class, config, {"dtype": torch.float32})
        tokenizer, missing = load_tokenizer(args.model, HubOptions()), sorted(info["missing_keys"])
    ignored = model_type.computed_weights
    needed = [name for name in missing if not name.endswith(ignored) and is_needed(name, auto_class)]
    check_complete(args.model, model, needed)
    return model, tokenizer


def is_needed(name: str, auto_class: str) -> bool:
    """Return whether a weight takes part in the results; classifiers may read a pooler."""
    return is_reportable(name) or ("pooler." in name and auto_class == "AutoModelForSequenceClassification")


def checksum(model: PreTrainedModel) -> str:
    """Return a checksum of a model's config and weights."""
    fields = model.config.to_dict()
    own = {name: value for name, value in fields.items() if name not in ("_name_or_path", "transformers_version")}
    found = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
