"""What the command needs before torch is there: importing that takes seconds, `--help` and a usage error should not."""

__version__ = "1.0.0"
