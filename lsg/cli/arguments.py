"""The arguments of the command, on the command line and in a JSON file."""

# transformers' HfArgumentParser also reads arguments from a command line or a JSON file. It is not used: its import is
# too slow for `--help`, it takes no flags after a JSON file, and its errors are many lines long.

import argparse
import ast
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..advice import help_text
from ..errors import nearest, one_line, read_json
from .streams import write_stdout

DESCRIPTION = """
Convert a Hugging Face checkpoint into its LSG variant, which reads long documents at linear cost, without training.
The output folder is complete: load it with trust_remote_code=True, or copy it to the Hub (--push_to_hub).
"""
EPILOG = """
examples:
  {command} --initial_model roberta-base --model_name lsg-roberta-base --run_test
  {command} --initial_model bert-base-uncased --model_name lsg-bert --max_sequence_length 16384 \\
      --model_kwargs "{{'sparsity_type': 'lsh', 'block_size': 32, 'sparse_block_size': 32}}"
  {command} arguments.json --overwrite

The first argument may be a JSON file with an object of these arguments: {{"initial_model": "roberta-base", ...}}.
Flags after it override it.
Exit codes: 0 done; 1 failed, at least in part: the last line says why, and whether the output was written; 2 wrong
usage; 130 interrupted; 129 and 143 ended by SIGHUP and SIGTERM: the last line says whether the output was written.
The output is always complete, or absent.

What for (the figures, with intervals, are in README.md):
{advice}
"""
TYPES = "norm, pooling, stride, block_stride, lsh, bos_pooling, none"
KWARGS_HELP = f"""fields of the converted config, as JSON or with single quotes as in the example: block_size
(128), sparse_block_size (128), sparsity_factor (2), sparsity_type (norm; one of {TYPES}), num_global_tokens (1),
mask_first_token (false), pool_with_global (true), adaptive (true), lsh_num_pre_rounds (1), lsh_seed (123),
pin_first_segment (false; true for question answering if no size is named), max_pinned_tokens (128), and the fields of
the model's own config"""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which reports a help text that could not be printed."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2; the message may repeat any amount of the user's text."""
        self.refuse(one_line(message))

    def refuse(self, message: str) -> NoReturn:
        """Exit with code 2; what the message repeats of the user's text is already short."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows the usage)\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output, unless another file is given."""
        if file is None:
            self.write(self.format_help())
        else:
            super().print_help(file)

    def write(self, text: str) -> None:
        """Write a text to standard output; exit with code 1 if that fails."""
        if why := write_stdout(text):
            self.exit(1, f"{self.prog}: error: standard output cannot be written: {one_line(why)}\n")


class CommandParser(OneLineParser):
    """The command's parser: for an unknown argument it says where LSG fields belong."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        hint = "; LSG fields go into --model_kwargs" if "unrecognized" in message else ""
        self.refuse(one_line(message) + hint)


class Version(argparse.Action):
    """Prints the versions of this package and of what it depends on, without importing torch or transformers."""

    def __call__(self, parser: Any, *given: Any, **options: Any) -> NoReturn:
        """Print them and exit; `parser` is the OneLineParser."""
        parts = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "lsg-converter")
        parser.write(f"{parser.prog} {__version__} ({parts})\n")
        sys.exit()


def versions() -> dict[str, str]:
    """Return the versions of this package, of the packages it depends on, and of Python."""
    found = {"lsg-converter": __version__}
    for name in ("torch", "transformers", "huggingface_hub"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return {**found, "Python": platform.python_version()}


def parse_boolean(text: str) -> bool:
    """Return the value of true/false, yes/no or 1/0, in upper or lower case."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"True or False is expected, got {one_line(repr(text))}")
    return known[text.lower()]


def parse_mapping(text: str) -> dict[str, Any]:
    """Return a JSON object; it may have single quotes, and Python's True, False, None."""
    names = {"true": "True", "false": "False", "null": "None"}
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names:
                node.id = names[node.id]
        value = ast.literal_eval(ast.unparse(tree))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not a JSON object: {one_line(repr(text))}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise argparse.ArgumentTypeError(f"a JSON object is expected, got {one_line(repr(text))}")
    return value


def parse_path(text: str) -> str:
    """Return a path, or a name on the Hub; a leading ~ becomes the home folder."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"no such user's home folder: {one_line(text)} (a name with ~ in front: ./~...)"
        )
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:  # neither safetensors nor config.json can have other names
        raise argparse.ArgumentTypeError(f"a name in UTF-8 is expected, got {one_line(ascii(text))}") from error
    return path


def add(group: Any, name: str, metavar: str, text: str, **options: Any) -> None:
    """Add an argument that takes a value."""
    group.add_argument(f"--{name}", metavar=metavar, help=text, **options)


def add_switch(group: Any, name: str, text: str, default: bool = False) -> None:
    """Add a boolean argument: the flag alone means True, and True or False may follow it."""
    options: dict[str, Any] = {"nargs": "?", "const": True, "type": parse_boolean, "metavar": "True|False"}
    group.add_argument(f"--{name}", default=default, help=f"{text} ({default})", **options)


def make_parser(program: str) -> CommandParser:
    """Return the parser of the command whose name is `program`."""
    command = f"python {program}" if program.endswith(".py") else program
    parser = CommandParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EPILOG.format(command=command, advice=help_text()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the versions and exit")
    add_model_arguments(parser)
    hub = parser.add_argument_group("the Hub, and trust")
    add(hub, "token", "TOKEN", "for private models and for --push_to_hub (default for the latter: the stored token)")
    add_switch(hub, "use_auth_token", "use the token that is stored on this machine")
    add(hub, "revision", "NAME", "branch, tag or commit of the model")
    add_switch(hub, "trust_remote_code", "run the checkpoint's own code, which some tokenizers need")
    add(
        hub,
        "push_to_hub",
        "NAME",
        "repository to copy the output to, created if needed (not after a failed --run_test)",
    )
    add_switch(hub, "private", "with --push_to_hub: create a private repository; an existing public one is refused")
    out = parser.add_argument_group("the output")
    add_switch(out, "overwrite", "replace an earlier conversion at --model_name; edited files are kept as NAME.old")
    add_switch(out, "run_test", "load the output in a new process, run every AutoClass, compare with the original")
    text = "also write onnx/model.onnx, for any batch and length, and compare it (needs the extra: onnx)"
    add_switch(out, "onnx", text)
    add_switch(out, "dry_run", "print the config, the files and their size; load no weights and write nothing")
    add(out, "report", "FILE", "JSON file to write: what was done, with all measurements", type=parse_path)
    return parser


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which model is converted, and how."""
    what = parser.add_argument_group("what to convert")
    source = "folder of the checkpoint, or its name on the Hub"
    add(what, "initial_model", "PATH", source, required=True, type=parse_path)
    add(what, "model_name", "PATH", "output folder", required=True, type=parse_path)
    add(what, "architecture", "CLASS", "class to load, such as RobertaForMaskedLM (default: the one in config.json)")
    what.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="number format of the output (default: the checkpoint's)",
    )
    how = parser.add_argument_group("the LSG model")
    add(how, "max_sequence_length", "N", "maximum number of tokens (4096)", type=int, default=4096)
    add(how, "model_kwargs", "JSON", KWARGS_HELP, type=parse_mapping, default={})
    add(how, "global_positional_stride", "N", "positions between neighbouring globals (64)", type=int, default=64)
    add_switch(how, "random_global_init", "initialize the globals with random words instead of the mask token")
    add_switch(how, "use_token_ids", "add the embedding of token type 0 to the globals", default=True)
    add_switch(how, "keep_first_global_token", "LSG input only: initialize the globals again, except the first")
    add_switch(how, "resize_lsg", "LSG input only: change the positions and keep all globals")
    text = "initialize all globals again; LSG input needs this, --resize_lsg or --keep_first_global_token"
    add_switch(how, "new_globals", text)
    add(how, "seed", "N", "seed of all random draws (123)", type=int, default=123)
    add_switch(how, "allow_nan", "convert weights even if some are NaN or infinite")


def parse_arguments(parser: CommandParser, argv: list[str]) -> argparse.Namespace:
    """Return the arguments of a command line; the first may be a JSON file of further arguments."""
    if argv and argv[0].endswith(".json") and not argv[0].startswith("-"):
        argv = [*arguments_of_file(parser, argv[0]), *argv[1:]]  # the last one counts
    return parser.parse_args(argv)


def arguments_of_file(parser: CommandParser, file: str) -> list[str]:
    """Return the arguments in a JSON file, as on a command line."""
    where = one_line(file)
    try:
        arguments = read_json(Path(parse_path(file)))
    except (OSError, ValueError, argparse.ArgumentTypeError) as error:
        parser.refuse(f"{where}: {one_line(error)}")
    if not isinstance(arguments, dict):
        parser.refuse(f"{where}: a JSON object of arguments is expected")
    known = {action.dest for action in parser._actions} - {"help", "version"}
    for name in arguments:
        if name not in known:
            parser.refuse(f"{where}: unknown argument {one_line(repr(name))}; {nearest(name, known)}")
    given = {name: value for name, value in arguments.items() if value is not None}
    return [f"--{k}={json.dumps(v) if isinstance(v, dict) else v}" for k, v in given.items()]
