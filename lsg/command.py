"""What the command does with its arguments: convert, save, test, describe; whole or not at all."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .converter import HUB_FIELDS, LSGConverter
from .errors import ConversionError
from .model_card import auto_class_of, write_model_card
from .output_folder import check_output, whole_or_nothing
from .saving import save_checkpoint
from .self_test import SelfTestReport, run_self_test
from .sentence_parts import copy_sentence_parts


def convert(args: argparse.Namespace, tell_written: Callable[[Path], object]) -> str:
    """Convert as the command line says; return what to tell the user.

    Args:
        args: of the command line.
        tell_written: called with the output's path as soon as it is there.

    Raises:
        ConversionError: with the reason in one line; nothing is written then.
    """
    path, source = Path(args.model_name), args.initial_model
    output = check_output(path, Path(source), args.overwrite)
    converter = make_converter(args)
    hub = {"token": args.token or (True if args.use_auth_token else None), "revision": args.revision}
    hub = {name: value for name, value in hub.items() if value is not None}
    load = {"dtype": args.dtype, "trust_remote_code": args.trust_remote_code, **hub}
    report = None
    with whole_or_nothing(output, tell_written) as folder:
        converted = converter.load_and_convert(source, args.architecture, load, args.model_kwargs)
        save_checkpoint(converted.model, converted.tokenizer, folder)
        is_sentence_encoder = copy_sentence_parts(source, folder, args.max_sequence_length, hub)
        config, class_name = converted.model.config, type(converted.model).__name__
        has_mlm_head = class_name.endswith(("ForMaskedLM", "ForPreTraining")) and not converted.fresh_weights
        num_parameters, converted.model = converted.model.num_parameters(), None  # the test needs the memory
        if args.run_test:
            report = run_self_test(folder, source, args.max_sequence_length, hub, converted.is_lsg, has_mlm_head)
        write_model_card(folder, path.name, source, args.max_sequence_length, hub, config, class_name, report)
        if report and report.failed:
            sys.stdout.write(report.to_markdown() + "\n")
            raise ConversionError(f"the output failed its test ({', '.join(report.failed)}) and was removed")
    loader = "SentenceTransformer" if is_sentence_encoder else f"{auto_class_of(config, class_name)}.from_pretrained"
    return summary(path, loader, class_name, num_parameters, args.max_sequence_length, report)


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
