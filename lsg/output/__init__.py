"""The output folder: whole, or not there; nothing of the user's is lost."""
