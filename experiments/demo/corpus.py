"""The demo's training text: English prose from the documentation strings of packages that users have installed.

Files of the Python standard library, torch, transformers, numpy and huggingface_hub are parsed, never imported or run.
"""

import ast
import importlib.util
import re
import sysconfig
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

PACKAGES = ("torch", "transformers", "numpy", "huggingface_hub")
FUNCTION_WORDS = set("the a an of to is are be in on and or for with as by that this it if not from can will".split())
PLAIN_WORD = re.compile(r"[(\"']?[A-Za-z][a-z]*(?:['-][a-z]+)*[\"')]*[.,;:!?]?[\"')]?$")
CLEANING = (
    (re.compile(r"```.*?```", re.S), "\n\n"),  # fenced code
    (re.compile(r"^[ \t]*(?:>>>|\.\.\. |\.\. |\$ |@|[|+]).*$", re.M), "\n"),  # doctest, directives, shell, tables
    (re.compile(r"</?[A-Za-z][^>\n]*>|\[\[[\w.-]+\]\]"), ""),  # HTML-like tags and anchors
    (re.compile(r":[\w:]+:`[~!]?(?:[^`<]*\.)?([^`<]+?)(?:\s*<[^`]*>)?`"), r"\1"),  # :class:`~torch.nn.Module`
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\s]*\)"), r"\1"),  # [text](link)
    (re.compile(r"\[?`+~?([^`]*)`+_*\]?|\*{1,2}([^*\n]+)\*{1,2}"), r"\1\2"),  # `code`, *emphasis*
    (re.compile(r"^[ \t]*[\w, ]+ : .*$", re.M), "\n"),  # numpydoc signature, "x : array_like"
    (re.compile(r"^[ \t]*[-*\w]+(?: \(.*\))?:(?:[ \t]+|$)", re.M), "\n\n"),  # "x (Tensor, optional): ..."
    (re.compile(r"^[ \t]*(?:[-*#]+|\d+[.)])[ \t]+", re.M), "\n\n"),  # list items and headings
)


def documentation_strings(path: Path) -> Iterator[str]:
    """Yield the docstrings and the other long strings of one Python file, without running it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError):
        return
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    yield from (value for value in constants if isinstance(value, str) and len(value) >= 60)


def prose_paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a documentation string that read as English prose, on one line each."""
    for pattern, replacement in CLEANING:
        text = pattern.sub(replacement, text)
    for block in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"\s*::$", ":", " ".join(block.split()))
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)
        paragraph = " ".join(s for s in sentences if not re.search(r"https?:|www\.|[{}\\=_]{2}|[@%{}\\]", s))
        words = paragraph.split()
        plain = sum(bool(PLAIN_WORD.match(word)) for word in words)
        function = sum(word.lower() in FUNCTION_WORDS for word in words)
        if len(words) >= 6 and plain >= 0.8 * len(words) and function >= max(2, 0.12 * len(words)):
            yield paragraph[0].upper() + paragraph[1:]


def collect_documents() -> dict[str, str]:
    """Return one document per module, dropping each paragraph that mostly repeats earlier ones."""
    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    specs = ((name, importlib.util.find_spec(name)) for name in PACKAGES)
    roots |= {name: Path(spec.origin).parent for name, spec in specs if spec is not None and spec.origin is not None}
    excluded = {"site-packages", "dist-packages", "test", "tests"}
    found = [(name, root, path) for name, root in roots.items() for path in sorted(root.rglob("*.py"))]
    files = [(name, root, path) for name, root, path in found if not excluded & set(path.relative_to(root).parts)]
    seen: set[int] = set()
    documents = {}
    for name, root, path in tqdm(files, desc="reading modules", unit="file", mininterval=2):
        kept = []
        for paragraph in (p for string in documentation_strings(path) for p in prose_paragraphs(string)):
            words = re.findall(r"[a-z]+", paragraph.lower())
            shingles = {zlib.crc32(" ".join(words[i : i + 5]).encode()) for i in range(max(1, len(words) - 4))}
            if len(shingles - seen) >= 0.5 * len(shingles):
                kept.append(paragraph)
            seen |= shingles
        if sum(map(len, kept)) >= 200:
            documents[f"{name}/{path.relative_to(root).as_posix()}"] = "\n".join(kept)
    return documents


def split_documents(documents: dict[str, str]) -> tuple[list[str], list[str]]:
    """Split into (training, held out): about 4 % of the modules, chosen by a hash of their names, are held out."""
    held_out = {name for name in documents if zlib.crc32(name.encode()) % 25 == 0}
    training = [text for name, text in documents.items() if name not in held_out]
    return training, [documents[name] for name in documents if name in held_out]
