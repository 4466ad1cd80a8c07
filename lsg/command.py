"""The steps of the command: convert, save, test, describe, push. The output is complete or absent."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from .converter import LSGConverter
from .dry_run import describe
from .errors import ConversionError
from .hub_options import HUB_FIELDS, HubOptions
from .loading import choose_class, read_config
from .model_card import write_model_card
from .model_types import find_model_type
from .onnx_check import OnnxReport
from .onnx_output import check_onnx, export_onnx
from .output.folder import Output, check_output, output_folder
from .publishing import check_target, push
from .report import Record, report_written, start_record
from .saving import SavedModel, save_checkpoint
from .self_test import SelfTestReport, run_self_test
from .sentence_encoders import copy_sentence_files, is_sentence_encoder


def convert(args: argparse.Namespace, on_written: Callable[[Path], object]) -> str:
    """Convert as the command line says, or describe what a conversion would do; return the text to print.

    Args:
        args: of the command line.
        on_written: called with the output's path as soon as it is complete.

    Raises:
        ConversionError: with the reason in one line; nothing is written then, unless `on_written` was called.
    """
    check_combinations(args)
    output = check_output(Path(args.model_name), Path(args.initial_model), args.overwrite, not args.dry_run)
    converter = make_converter(args)
    if args.onnx:
        check_exportable(args, hub_options(args))
    target = check_target(args.push_to_hub, args.token, args.private) if args.push_to_hub is not None else None
    if args.dry_run:
        return describe(args, converter, output, hub_options(args))
    record = start_record(args)
    with report_written(args.report, output.folder, record):
        text = make_output(args, converter, output, record, on_written)
        record.add_files(output.folder)
        if target is not None:
            with record.timed("push"):
                record.push = push(target, output.folder)
            text += f"Pushed it to {record.push['repository']}\n"
    return text


def check_combinations(args: argparse.Namespace) -> None:
    """Raise ConversionError for options that contradict each other."""
    if args.private and args.push_to_hub is None:
        raise ConversionError("private: it is for the repository that push_to_hub names; pass push_to_hub, too")
    if args.dry_run and args.report is not None:
        raise ConversionError("dry_run writes nothing, so there is nothing to report; leave one of them out")


def check_exportable(args: argparse.Namespace, hub: HubOptions) -> None:
    """Raise ConversionError if no ONNX file can be made of the checkpoint, before its weights are loaded."""
    config_dict = read_config(args.initial_model, hub)
    model_type = find_model_type(config_dict, args.initial_model)
    model_class = choose_class(model_type, args.architecture, config_dict.get("architectures"))
    fields = {**config_dict, **args.model_kwargs}
    check_onnx(model_type, model_class.__name__, fields, is_sentence_encoder(args.initial_model, hub))


def hub_options(args: argparse.Namespace) -> HubOptions:
    """Return the options for loading the original."""
    token = args.token or (True if args.use_auth_token else None)
    return HubOptions(token, args.revision, dtype=args.dtype, trust_remote_code=args.trust_remote_code)


def make_converter(args: argparse.Namespace) -> LSGConverter:
    """Return the converter with the options of the command line.

    Raises:
        ConversionError: an option that is not allowed, or is given in the wrong place.
    """
    for name in HUB_FIELDS:
        if name in args.model_kwargs:
            raise ConversionError(f"model_kwargs: {name!r} is no field of the config; use --{name} if there is one")
    return LSGConverter(**{field.name: getattr(args, field.name) for field in fields(LSGConverter)})


def make_output(
    args: argparse.Namespace,
    converter: LSGConverter,
    output: Output,
    record: Record,
    on_written: Callable[[Path], object],
) -> str:
    """Write the output, test it if requested, and record the results; return the text to print.

    Raises:
        ConversionError: nothing is written then; if the self test failed, the error brings its tables along.
    """
    path, hub, test, onnx = Path(args.model_name), hub_options(args), None, None
    with output_folder(output, on_written) as folder:
        saved = convert_and_save(args, converter, folder, record)
        record.add_model(saved)
        if args.run_test:
            with record.timed("self test"):
                test = run_self_test(folder, saved.source, saved.max_length, hub, saved.is_lsg, saved.trained_head)
            record.add_test(test)
        if args.onnx and not (test and test.failed):
            with record.timed("onnx"):
                onnx = export_onnx(folder, args.model_name)
            record.add_onnx(onnx)
        write_model_card(folder, path.name, saved, hub, test, onnx)
        if test and test.failed:
            what = f"the output failed its test ({', '.join(test.failed)}) and was removed"
            raise ConversionError(what, shown=test.to_markdown() + "\n")
    return summarize(path, saved, test, onnx)


def convert_and_save(args: argparse.Namespace, converter: LSGConverter, folder: Path, record: Record) -> SavedModel:
    """Convert the checkpoint and save it; on return its memory is free again, which the self test needs."""
    source, length, hub = args.initial_model, args.max_sequence_length, hub_options(args)
    with record.timed("load and convert"):
        checkpoint = converter.load_and_convert(source, args.architecture, hub, args.model_kwargs)
    with record.timed("save and compare"):
        save_checkpoint(checkpoint.model, checkpoint.tokenizer, folder)
        is_sentence_encoder = copy_sentence_files(source, folder, length, hub)
    return SavedModel(
        source=source,
        model_type=checkpoint.model_type.name,
        is_lsg=checkpoint.is_lsg,
        config=checkpoint.model.config,
        num_parameters=checkpoint.model.num_parameters(),
        max_length=length,
        trained_head=None if checkpoint.newly_initialized else purpose_of_head(type(checkpoint.model).__name__),
        is_sentence_encoder=is_sentence_encoder,
    )


def purpose_of_head(class_name: str) -> str | None:
    """Return what a class's head finds, where the self test compares it with the original's."""
    if class_name.endswith("ForQuestionAnswering"):
        return "answers"
    return "masked words" if class_name.endswith(("ForMaskedLM", "ForPreTraining")) else None


def summarize(path: Path, saved: SavedModel, test: SelfTestReport | None, onnx: OnnxReport | None) -> str:
    """Return what was converted, where it is, and how to load it."""
    loader = "SentenceTransformer" if saved.is_sentence_encoder else f"{saved.auto_class}.from_pretrained"
    lines = [
        *([test.to_markdown(), ""] if test else []),
        f"Made {saved.class_name}, {saved.num_parameters / 1e6:,.1f} million parameters, {saved.max_length:,} tokens, "
        f"in {path.resolve()}",
        f'Load it:  {loader}("{path}", trust_remote_code=True)',
        *([f"Without remote code: {path / onnx.file}; {onnx.summary()}"] if onnx else []),
    ]
    return "\n".join(lines) + "\n"
