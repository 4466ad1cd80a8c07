"""The error that all experiments raise for bad input; it needs no package, so that `--help` stays quick."""


class InputError(ValueError):
    """Something of the user's that cannot be used; the message is one line: what was expected, given, allowed."""
