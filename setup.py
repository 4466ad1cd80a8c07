"""The text that a package index shows: README.md with absolute links. Everything else is in pyproject.toml."""

import re
from pathlib import Path

ROOT = Path(__file__).parent


def index_description() -> str:
    """Return README.md with links to the repository in the place of relative ones."""
    repository = re.findall(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[0]
    text = (ROOT / "README.md").read_text("utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\g<1>{repository}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{repository}/blob/main/", text)


if __name__ == "__main__":
    from setuptools import setup

    setup(long_description=index_description(), long_description_content_type="text/markdown")
