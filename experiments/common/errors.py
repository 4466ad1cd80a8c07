"""The error that experiments raise for bad input. Nothing heavy is imported, so that `--help` stays quick."""

import argparse


class InputError(ValueError):
    """Input that cannot be used; the message is one line: what was expected, what was given, what is allowed."""


def check_range(args: argparse.Namespace, *names: str, minimum: float, maximum: float = float("inf")) -> None:
    """Raise InputError unless these options, or all numbers of their lists, lie within the bounds or are None."""
    for name in names:
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not minimum <= value <= maximum:
                allowed = f"at least {minimum}" + ("" if maximum == float("inf") else f" and at most {maximum}")
                raise InputError(f"--{name} {value} is not allowed: it must be {allowed}")
