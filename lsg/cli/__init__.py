"""The command line, importable without torch: its arguments and its output streams."""
