"""Convert a Hugging Face checkpoint into its LSG variant: `python convert_checkpoint.py --help`."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lsg.cli.arguments import make_parser, parse_arguments, parse_mapping
from lsg.cli.streams import messages_may_be_lost, open_closed_streams, say, tell
from lsg.text import one_line

__all__ = ["main", "parse_mapping"]


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


def program_name() -> str:
    """Return what the user called to run this."""
    return "lsg-convert" if Path(sys.argv[0]).stem.startswith("lsg-convert") else "convert_checkpoint.py"


def conclude(program: str, text: str, written: list[Path]) -> int:
    """Print what there is to say at the end; return the exit code: what was written is done, whoever hears of it."""
    if why := say(text):
        outcome = f"{one_line(written[0])} was written, but" if written else "error:"
        tell(program, f"{outcome} standard output cannot be written: {one_line(why)}")
    return 1 if why and not written else 0


def error_line(error: Exception) -> str:
    """Return an error's line: that of a ConversionError as it is, as it holds little of the user's text."""
    if type(error).__name__ == "ConversionError":  # its class is not imported before torch is needed
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {one_line(error)}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    open_closed_streams()
    with messages_may_be_lost():
        return run(program_name(), sys.argv[1:] if argv is None else argv)


def run(program: str, argv: list[str]) -> int:
    """Do what a command line says; return the exit code."""
    args = parse_arguments(make_parser(program), argv)
    written: list[Path] = []
    try:
        with signals_end_it():
            # torch and transformers take seconds to import; --help should not
            from lsg.command import convert

            return conclude(program, convert(args, written.append), written)
    except (KeyboardInterrupt, Ended) as error:
        code, how = (error.code, f"ended by {error.name}") if isinstance(error, Ended) else (130, "interrupted")
        tell(program, f"{how}; {one_line(written[0]) if written else 'nothing'} was written")
        return code
    except Exception as error:  # noqa: BLE001 (the door: whatever it is, the user gets one line)
        unsaid = say(getattr(error, "shown", ""))
        rest = [f"{one_line(written[0])} was written"] if written else []
        rest += [f"standard output cannot be written: {one_line(unsaid)}"] if unsaid else []
        tell(program, "; ".join([f"error: {error_line(error)}", *rest]))
        return 1


if __name__ == "__main__":
    sys.exit(main())
