"""Convert a Hugging Face checkpoint into its LSG variant: `python convert_checkpoint.py --help`."""

import argparse
import ast
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

DESCRIPTION = """
Convert a Hugging Face checkpoint into its LSG variant, which reads long documents at linear cost, without training.
The output folder is complete: load it with trust_remote_code=True, or copy it to the Hub.
"""
EPILOG = """
examples:
  python convert_checkpoint.py --initial_model roberta-base --model_name lsg-roberta-base --run_test
  python convert_checkpoint.py --initial_model bert-base-uncased --model_name lsg-bert --max_sequence_length 16384 \\
      --model_kwargs "{'sparsity_type': 'lsh', 'block_size': 32, 'sparse_block_size': 32}"
  python convert_checkpoint.py arguments.json

The only argument may be a JSON file that holds an object of these arguments: {"initial_model": "roberta-base", ...}.
Exit codes: 0 done; 1 not done, for the reason in the last line; 2 wrong usage; 130 interrupted; 129 and 143 ended by
SIGHUP and SIGTERM. Interrupted or ended, it says whether the output was written; it is whole, or not there.
"""
TYPES = "norm, pooling, stride, block_stride, lsh, bos_pooling, none"
KWARGS_HELP = f"""fields of the converted config, as JSON or in the single-quoted form of the examples: block_size
(128), sparse_block_size (128), sparsity_factor (2), sparsity_type (norm; one of {TYPES}), num_global_tokens (1),
mask_first_token (false), pool_with_global (true), adaptive (true), lsh_num_pre_rounds (1), lsh_seed (123), and the
fields of the model's own config"""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        hint = "LSG fields go into --model_kwargs; " if "unrecognized" in message else ""
        self.exit(2, f"{self.prog}: error: {message} ({hint}--help tells the usage)\n")


def parse_boolean(text: str) -> bool:
    """Read True or False, in any case, and their usual other spellings."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"True or False is expected, got {text!r}")
    return known[text.lower()]


def parse_mapping(text: str) -> dict[str, Any]:
    """Read a JSON object, or the same with single quotes and with True, False, None in either spelling."""
    names = {"true": "True", "false": "False", "null": "None"}
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in names:
                node.id = names[node.id]
        value = ast.literal_eval(ast.unparse(tree))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not a JSON object: {text!r}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise argparse.ArgumentTypeError(f"a JSON object is expected, got {text!r}")
    return value


def add(group: Any, name: str, metavar: str, text: str, **options: Any) -> None:
    """Add an argument that takes a value."""
    group.add_argument(f"--{name}", metavar=metavar, help=text, **options)


def add_switch(group: Any, name: str, text: str, default: bool = False) -> None:
    """Add a boolean argument: alone it says True, and it may be followed by True or False."""
    options = {"nargs": "?", "const": True, "type": parse_boolean, "metavar": "True|False"}
    group.add_argument(f"--{name}", default=default, help=f"{text} ({default})", **options)


def make_parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = OneLineParser(
        prog="convert_checkpoint.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to convert")
    add(what, "initial_model", "PATH", "folder of the checkpoint, or its name on the Hub", required=True)
    add(what, "model_name", "PATH", "folder to make", required=True)
    add(what, "architecture", "CLASS", "class to load, such as RobertaForMaskedLM (default: the one in config.json)")
    what.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="number format of the output (default: the checkpoint's)",
    )
    how = parser.add_argument_group("the LSG model")
    add(how, "max_sequence_length", "N", "tokens it reads (4096)", type=int, default=4096)
    add(how, "model_kwargs", "JSON", KWARGS_HELP, type=parse_mapping, default={})
    add(how, "global_positional_stride", "N", "positions between neighbouring globals (64)", type=int, default=64)
    add_switch(how, "random_global_init", "draw the globals' words at random instead of taking the mask token")
    add_switch(how, "use_token_ids", "add the embedding of token type 0 to the globals", default=True)
    add_switch(
        how, "keep_first_global_token", "LSG input only: make the globals anew, but leave the first one as it is"
    )
    add_switch(how, "resize_lsg", "LSG input only: change the positions and leave all globals")
    add_switch(
        how, "new_globals", "make all globals anew; LSG input, whose globals may be trained, needs one of the three"
    )
    add(how, "seed", "N", "seed of all random draws (123)", type=int, default=123)
    add_switch(how, "allow_nan", "convert weights that are NaN or infinite, too, instead of refusing them")
    hub = parser.add_argument_group("the Hub, and trust")
    add(hub, "token", "TOKEN", "for private models")
    add_switch(hub, "use_auth_token", "use the token that is stored on this machine")
    add(hub, "revision", "NAME", "branch, tag or commit of the model")
    add_switch(hub, "trust_remote_code", "allow the checkpoint's own code to run, as some tokenizers want")
    out = parser.add_argument_group("the output")
    add_switch(
        out, "overwrite", "replace an earlier conversion at --model_name; what you edited there is kept as NAME.old"
    )
    add_switch(out, "run_test", "load the output in a fresh process, run every AutoClass, compare with the original")
    return parser


def arguments_of_file(parser: argparse.ArgumentParser, file: str) -> list[str]:
    """Turn a JSON file of arguments into the command line that it stands for."""
    from lsg.errors import nearest, one_line

    try:
        arguments = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{file}: {one_line(error)}")
    if not isinstance(arguments, dict):
        parser.error(f"{file}: a JSON object of arguments is expected")
    known = {action.dest for action in parser._actions} - {"help"}
    for name in arguments:
        if name not in known:
            parser.error(f"{file}: unknown argument {name!r}; {nearest(name, known)}")
    given = {name: value for name, value in arguments.items() if value is not None}
    return [f"--{k}={json.dumps(v) if isinstance(v, dict) else v}" for k, v in given.items()]


class Ended(BaseException):
    """A signal that asks the program to end; not an Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code, self.name = 128 + number, signal.Signals(number).name


@contextlib.contextmanager
def signals_end_it() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise Ended in the block, so that what is half-written is removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Ended(number)

    with contextlib.ExitStack() as before:
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                before.callback(signal.signal, number, signal.signal(number, end))
        yield


def tell(line: str) -> None:
    """Write a line to stderr."""
    with contextlib.suppress(OSError):  # a SIGHUP says that the terminal is gone
        print(f"convert_checkpoint.py: {line}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = make_parser()
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) == 1 and argv[0].endswith(".json"):
        argv = arguments_of_file(parser, argv[0])
    args = parser.parse_args(argv)
    written: list[Path] = []
    try:
        with signals_end_it():
            # torch and transformers take seconds to import; --help should not
            from lsg.command import convert

            sys.stdout.write(convert(args, written.append))
            sys.stdout.flush()
        return 0
    except (KeyboardInterrupt, Ended) as error:
        code, how = (error.code, f"ended by {error.name}") if isinstance(error, Ended) else (130, "interrupted")
        tell(f"{how}; {written[0] if written else 'nothing'} was written")
        return code
    except Exception as error:  # noqa: BLE001 (the door: whatever it is, the user gets one line)
        kind = "" if type(error).__name__ == "ConversionError" else f"{type(error).__name__}: "
        tell(f"error: {kind}{' '.join(str(error).split())}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
