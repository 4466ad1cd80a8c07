"""What the command does with its arguments: convert, save, test, describe, push; whole or not at all."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .converter import HUB_FIELDS, LSGConverter
from .dry_run import describe
from .errors import ConversionError
from .model_card import auto_class_of, write_model_card
from .output.folder import Output, check_output, whole_or_nothing
from .publishing import check_target, push
from .report import Record, reported, start_record
from .saving import save_checkpoint
from .self_test import SelfTestReport, run_self_test
from .sentence_parts import copy_sentence_parts


def convert(args: argparse.Namespace, tell_written: Callable[[Path], object]) -> str:
    """Convert as the command line says, or tell what that would make; return what to tell the user.

    Args:
        args: of the command line.
        tell_written: called with the output's path as soon as it is there.

    Raises:
        ConversionError: with the reason in one line; nothing is written then, unless `tell_written` was called.
    """
    check_combinations(args)
    output = check_output(Path(args.model_name), Path(args.initial_model), args.overwrite, not args.dry_run)
    converter = make_converter(args)
    target = check_target(args.push_to_hub, args.token, args.private) if args.push_to_hub is not None else None
    if args.dry_run:
        return describe(args, converter, output, hub_options(args))
    record = start_record(args)
    with reported(args.report, output.folder, record):
        text = make(args, converter, output, record, tell_written)
        record.note_files(output.folder)
        if target is not None:
            with record.timed("push"):
                record.push = push(target, output.folder)
            text += f"Pushed it to {record.push['repository']}\n"
    return text


def check_combinations(args: argparse.Namespace) -> None:
    """Raise ConversionError for options that make no sense together."""
    if args.private and args.push_to_hub is None:
        raise ConversionError("private: it is for the repository that push_to_hub names; give that, too")
    if args.dry_run and args.report is not None:
        raise ConversionError("dry_run writes nothing, so that report has nothing to tell; leave one of them out")


def hub_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return `token` and `revision` of the original, those that are given."""
    hub = {"token": args.token or (True if args.use_auth_token else None), "revision": args.revision}
    return {name: value for name, value in hub.items() if value is not None}


def make(
    args: argparse.Namespace,
    converter: LSGConverter,
    output: Output,
    record: Record,
    tell_written: Callable[[Path], object],
) -> str:
    """Make the output, test it if that is asked for, and note all figures; return what to tell the user.

    Raises:
        ConversionError: nothing is written then; the self test's tables are to be shown if it failed.
    """
    path, source, hub = Path(args.model_name), args.initial_model, hub_options(args)
    load = {"dtype": args.dtype, "trust_remote_code": args.trust_remote_code, **hub}
    report = None
    with whole_or_nothing(output, tell_written) as folder:
        with record.timed("load and convert"):
            converted = converter.load_and_convert(source, args.architecture, load, args.model_kwargs)
        with record.timed("save and compare"):
            save_checkpoint(converted.model, converted.tokenizer, folder)
            is_sentence_encoder = copy_sentence_parts(source, folder, args.max_sequence_length, hub)
        config, class_name = converted.model.config, type(converted.model).__name__
        has_mlm_head = class_name.endswith(("ForMaskedLM", "ForPreTraining")) and not converted.newly_initialized
        num_parameters, converted.model = converted.model.num_parameters(), None  # the test needs the memory
        auto_class, length = auto_class_of(config, class_name), args.max_sequence_length
        record.source = {"name": source, "model_type": converted.model_type.name, "is_lsg": converted.is_lsg}
        record.note_model(
            config, auto_class=auto_class, parameters=num_parameters, tokens=length, **{"class": class_name}
        )
        if args.run_test:
            with record.timed("self test"):
                report = run_self_test(folder, source, length, hub, converted.is_lsg, has_mlm_head)
            record.note_test(report)
        write_model_card(folder, path.name, source, length, hub, config, class_name, report)
        if report and report.failed:
            what = f"the output failed its test ({', '.join(report.failed)}) and was removed"
            raise ConversionError(what, shown=report.to_markdown() + "\n")
    loader = "SentenceTransformer" if is_sentence_encoder else f"{auto_class}.from_pretrained"
    return summary(path, loader, class_name, num_parameters, length, report)


def make_converter(args: argparse.Namespace) -> LSGConverter:
    """Make the converter that the command line asks for.

    Raises:
        ConversionError: an option that is not allowed, or is given in the wrong place.
    """
    for name in HUB_FIELDS:
        if name in args.model_kwargs:
            raise ConversionError(f"model_kwargs: {name!r} is no field of the config; use --{name} where there is one")
    options = (
        "random_global_init",
        "global_positional_stride",
        "keep_first_global_token",
        "resize_lsg",
        "new_globals",
        "use_token_ids",
        "allow_nan",
    )
    return LSGConverter(args.max_sequence_length, seed=args.seed, **{name: getattr(args, name) for name in options})


def summary(
    output: Path, loader: str, class_name: str, num_parameters: int, length: int, report: SelfTestReport | None
) -> str:
    """Say what was made, where, and how to load it."""
    lines = [
        *([report.to_markdown(), ""] if report else []),
        f"Made {class_name}, {num_parameters / 1e6:,.1f} million parameters, {length:,} tokens, in {output.resolve()}",
        f'Load it:  {loader}("{output}", trust_remote_code=True)',
    ]
    return "\n".join(lines) + "\n"
