"""The command line, importable without torch: its arguments, and the streams it writes to."""
