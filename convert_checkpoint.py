"""Convert a Hugging Face checkpoint into its LSG variant: `python convert_checkpoint.py --help`."""

import sys
from pathlib import Path

from lsg.cli.arguments import make_parser, parse_arguments, parse_mapping
from lsg.cli.streams import lossy_stderr, open_closed_streams, write_error_line, write_stdout
from lsg.errors import ConversionError, one_line
from lsg.signals import TerminatedBySignal, signals_raised

__all__ = ["main", "parse_mapping"]


def program_name() -> str:
    """Return the name under which the user called this program."""
    return "lsg-convert" if Path(sys.argv[0]).stem.startswith("lsg-convert") else "convert_checkpoint.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    open_closed_streams()
    with lossy_stderr():
        return run(program_name(), sys.argv[1:] if argv is None else argv)


def run(program: str, argv: list[str]) -> int:
    """Run a command line; return the exit code."""
    args = parse_arguments(make_parser(program), argv)
    written: list[Path] = []  # the output, as soon as it is in its place
    try:
        with signals_raised():
            # torch and transformers take seconds to import; --help should not
            from lsg.command import convert

            return print_result(program, convert(args, written.append), written)
    except (KeyboardInterrupt, TerminatedBySignal) as error:
        code, how = 130, "interrupted"
        if isinstance(error, TerminatedBySignal):
            code, how = error.exit_code, f"ended by {error.name}"
        write_error_line(program, f"{how}; {one_line(written[0]) if written else 'nothing'} was written")
        return code
    except Exception as error:  # noqa: BLE001 (the user gets one line for any error)
        why = write_stdout(getattr(error, "shown", ""))  # a text that the error brings along
        write_error_line(program, f"error: {describe_error(error, written, why)}")
        return 1


def print_result(program: str, text: str, written: list[Path]) -> int:
    """Print the result; return the exit code, which is 0 if the output was written, even if printing fails."""
    if why := write_stdout(text):
        outcome = f"{one_line(written[0])} was written, but" if written else "error:"
        write_error_line(program, f"{outcome} standard output cannot be written: {one_line(why)}")
    return 1 if why and not written else 0


def describe_error(error: Exception, written: list[Path], why: str) -> str:
    """Return the line that describes an error; `why` says why standard output cannot be written, if so."""
    parts = [f"{type(error).__name__}: {one_line(error)}"]
    if isinstance(error, ConversionError):  # not shortened: what it repeats of the user's text is short already
        parts = [" ".join(str(error).split())]
    parts += [f"{one_line(written[0])} was written"] if written else []
    parts += [f"standard output cannot be written: {one_line(why)}"] if why else []
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
