"""The output folder: complete or absent, and none of the user's files is lost."""
