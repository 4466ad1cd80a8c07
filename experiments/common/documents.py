"""Documents of a user's folders as plain prose: text, reStructuredText, Markdown, POD and HTML, also compressed."""

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from tqdm import tqdm

from experiments.common.errors import InputError

Rules = tuple[tuple[re.Pattern[str], str], ...]
# the lines behind a line with indentation \1 that have more of it, or are empty
INDENTED = r"(?:\n[ \t]*$|\n\1[ \t]+\S.*$)*"
RST_RULES: Rules = (
    (re.compile(rf"^([ \t]*)\.\. (?!note|warning|tip|important|version).*${INDENTED}", re.M), "\n"),  # directives
    (re.compile(r"^[ \t]*\.\. \w+::", re.M), "\n"),  # those whose text is prose
    (re.compile(rf"^([ \t]*)(.*)::[ \t]*${INDENTED}", re.M), r"\1\2:\n"),  # literal blocks
    (re.compile(r"^[ \t]*:[\w -]+:.*$", re.M), ""),  # fields
    (re.compile(r"^[ \t]*(?:[|+].*|(\W)\1{2,}[ \W]*)$", re.M), "\n"),  # tables, lines under headings
    (re.compile(r":[\w:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`]*>)?`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r"`+([^`<]+?)(?:\s*<[^`]*>)?`+_*"), r"\1"),  # `text <link>`_, ``code``
    (re.compile(r"\*{1,2}([^*\n]+)\*{1,2}"), r"\1"),
    (re.compile(r"^[ \t]*(?:[-*+]|#\.|\(?\w{1,2}[.)])[ \t]+", re.M), "\n\n"),  # list items
)
MARKDOWN_RULES: Rules = (
    (re.compile(r"^([ \t]*)(```|~~~).*?(?:^[ \t]*\2|\Z)", re.M | re.S), "\n\n"),  # fenced code
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^>\n]*>", re.S), ""),
    (re.compile(r"^[ \t]*(?:#+.*|\|.*|[-=]{3,})$", re.M), "\n"),  # headings, tables
    (re.compile(r"!?\[([^\]\n]*)\](?:\([^)\s]*\)|\[[^\]]*\])"), r"\1"),  # [text](link)
    (re.compile(r"`+([^`]*)`+|\*{1,2}([^*\n]+)\*{1,2}"), r"\1\2"),
    (re.compile(r"^[ \t]*(?:[-*+>]|\d+[.)])[ \t]+", re.M), "\n\n"),
)
POD_RULES: Rules = (
    (re.compile(r"^=begin .*?(?:^=end.*?$|\Z)", re.M | re.S), "\n\n"),
    (re.compile(r"^(?:=.*|[ \t]+\S.*)$", re.M), "\n"),  # commands, verbatim text
    (re.compile(r"[XZ]<[^<>]*>"), ""),
    (re.compile(r"L<([^<>|]*)\|[^<>]*>"), r"\1"),
    (re.compile(r"[A-Z]<<+ (.*?) >>+", re.S), r"\1"),
    *((re.compile(r"\b[BCEFILS]<([^<>]*)>"), r"\1"),) * 3,  # nested
)
RULES: dict[str, Rules] = {".txt": RST_RULES, ".rst": RST_RULES, ".md": MARKDOWN_RULES, ".pod": POD_RULES}
HTML_ENDINGS = (".html", ".htm", ".xhtml")
SKIPPED_TAGS = {"script", "style", "head", "nav", "footer", "pre", "table", "h1", "h2", "h3", "h4", "h5", "h6", "title"}
BLOCK_TAGS = set("address article aside blockquote body br dd div dl dt hr li main ol p section td tr ul".split())
SHINGLE = 8  # words that count as a repetition


@dataclass(frozen=True)
class Document:
    """One document: its name, and its prose, with a paragraph on each line."""

    name: str
    text: str


class ProseParser(HTMLParser):
    """Collects the text of an HTML page in `parts`, with an empty line between blocks, without code and tables."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a block, or a part that is skipped."""
        if tag in SKIPPED_TAGS:
            self.skipped.append(tag)
        if tag in SKIPPED_TAGS | BLOCK_TAGS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """End a block, or a part that is skipped."""
        if tag in self.skipped:
            del self.skipped[self.skipped.index(tag) :]
        if tag in SKIPPED_TAGS | BLOCK_TAGS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Keep text that is not skipped."""
        if not self.skipped:
            self.parts.append(data)


def ending(file: Path) -> str:
    """Return the ending that says how a file is written, without .gz; a language may follow it, as in .html.en."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    if len(suffixes) > 1 and suffixes[-2] in HTML_ENDINGS and suffixes[-1] == ".en":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_files(paths: list[Path]) -> list[Path]:
    """Return the files that are named, and those of known endings in the folders that are named, in order.

    Raises:
        InputError: a path that does not exist.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise InputError(f"--text {path}: no such file or folder")
        inside = path.rglob("*") if path.is_dir() else [path]
        files += sorted(f for f in inside if f.is_file() and (f == path or ending(f) in (*RULES, *HTML_ENDINGS)))
    return list(dict.fromkeys(files))


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, unpacked if its name ends in .gz.

    Raises:
        OSError, EOFError, zlib.error, UnicodeDecodeError: it cannot be read.
    """
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix.lower() == ".gz" else data).decode("utf-8")


def prose_paragraphs(text: str, kind: str) -> Iterator[str]:
    """Yield the paragraphs of a text that are prose, each on one line.

    A paragraph is prose if it has at least five words, ends like a sentence, and is mostly letters.

    Args:
        kind: the ending of its file, such as ".rst".
    """
    if kind in HTML_ENDINGS:
        parser = ProseParser()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    for pattern, replacement in RULES.get(kind, ()):
        text = pattern.sub(replacement, text)
    for block in re.split(r"\n\s*\n", text):
        paragraph = " ".join(block.replace("\N{PILCROW SIGN}", "").split())
        letters = sum(c.isalpha() or c == " " for c in paragraph)
        is_sentence = re.search(r"[.!?:][)\"'”’]*$", paragraph) is not None
        if paragraph.count(" ") >= 4 and is_sentence and letters >= 0.9 * len(paragraph):
            yield paragraph


def shingles(text: str) -> set[int]:
    """Return checksums of all runs of `SHINGLE` words."""
    words = re.findall(r"\w+", text.lower())
    return {zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(max(1, len(words) - SHINGLE + 1))}


def read_documents(paths: list[Path], min_words: int = 1) -> list[Document]:
    """Read the documents of files and folders as prose; one that mostly repeats earlier ones is left out.

    A file that cannot be read is left out with a warning on stderr.

    Args:
        min_words: shorter documents are left out.

    Raises:
        InputError: a path that does not exist, or no document with prose.
    """
    files, seen = find_files(paths), set[int]()
    documents = []
    for file in tqdm(files, desc="reading documents", unit="file", mininterval=2, disable=len(files) < 100):
        try:
            text = read_text(file)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            tqdm.write(f"warning: {file} is left out, it cannot be read: {error}", file=sys.stderr)
            continue
        prose = "\n".join(prose_paragraphs(text, ending(file)))
        if not prose or len(prose.split()) < min_words:
            continue
        own = shingles(prose)
        if len(own - seen) >= 0.5 * len(own):
            documents.append(Document(str(file), prose))
            seen |= own
    if not documents:
        where = " ".join(map(str, paths))
        least = f" of at least {min_words} words" if min_words > 1 else ""
        raise InputError(f"--text {where}: no document with English prose{least} among {len(files)} files")
    return documents
