"""Documents of a user's folders as plain prose, with their headings apart.

They are text, reStructuredText, Markdown, POD and HTML, also compressed.
"""

import gzip
import re
import sys
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from tqdm import tqdm

from experiments.common.errors import InputError

Rules = tuple[tuple[re.Pattern[str], str], ...]
# the lines behind a line with indentation \1 that have more of it, or are empty
INDENTED = r"(?:\n[ \t]*$|\n\1[ \t]+\S.*$)*"
MARK = "\N{SYMBOL FOR START OF HEADING}"  # begins a block that is a heading; the digit behind it is the level
TITLE, SECTION = (rf"\n\n{MARK}{level} \1\n\n" for level in (0, 2))
RST_RULES: Rules = (
    (re.compile(rf"^([ \t]*)\.\. (?!note|warning|tip|important|version).*${INDENTED}", re.M), "\n"),  # directives
    (re.compile(r"^[ \t]*\.\. \w+::", re.M), "\n"),  # those whose text is prose
    (re.compile(rf"^([ \t]*)(.*)::[ \t]*${INDENTED}", re.M), r"\1\2:\n"),  # literal blocks
    (re.compile(r"^ ?([^\s+|].*\w.*)\n([^\w\s])\2{2,}[ \t]*$", re.M), SECTION),  # a line under it
    (re.compile(r"^[ \t]*:[\w -]+:.*$", re.M), ""),  # fields
    (re.compile(r"^[ \t]*(?:[|+].*|(\W)\1{2,}[ \W]*)$", re.M), "\n"),  # tables, lines under headings
    (re.compile(r":[\w:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`]*>)?`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r"`+([^`<]+?)(?:\s*<[^`]*>)?`+_*"), r"\1"),  # `text <link>`_, ``code``
    (re.compile(r"\*{1,2}([^*\n]+)\*{1,2}"), r"\1"),
    (re.compile(r"^[ \t]*(?:[-*+]|#\.|\(?\w{1,2}[.)])[ \t]+", re.M), "\n\n"),  # list items
)
MARKDOWN_RULES: Rules = (
    (re.compile(r"\A---\n.*?\n---$", re.M | re.S), ""),  # what a generator of pages reads
    (re.compile(r"^([ \t]*)(```|~~~).*?(?:^[ \t]*\2|\Z)", re.M | re.S), "\n\n"),  # fenced code
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^>\n]*>", re.S), ""),
    (re.compile(r"^#+[ \t]+(.*?)[ \t#]*$", re.M), SECTION),
    (re.compile(r"^([^\s|>-].*\w.*)\n(?:={3,}|-{3,})[ \t]*$", re.M), SECTION),
    (re.compile(r"^[ \t]*(?:#+.*|\|.*|[-=]{3,})$", re.M), "\n"),  # tables
    (re.compile(r"!?\[([^\]\n]*)\](?:\([^)\s]*\)|\[[^\]]*\])"), r"\1"),  # [text](link)
    (re.compile(r"`+([^`]*)`+|\*{1,2}([^*\n]+)\*{1,2}"), r"\1\2"),
    (re.compile(r"^[ \t]*(?:[-*+>]|\d+[.)])[ \t]+", re.M), "\n\n"),
)
POD_RULES: Rules = (
    (re.compile(r"[XZ]<[^<>]*>"), ""),
    (re.compile(r"^=begin .*?(?:^=end.*?$|\Z)", re.M | re.S), "\n\n"),
    (re.compile(r"^=head1[ \t]+NAME\s+^(\w.*)$", re.M), TITLE),
    (re.compile(r"^=head\d[ \t]+(.*)$", re.M), SECTION),
    (re.compile(r"^(?:=.*|[ \t]+\S.*)$", re.M), "\n"),  # commands, verbatim text
    (re.compile(r"L<([^<>|]*)\|[^<>]*>"), r"\1"),
    (re.compile(r"[A-Z]<<+ (.*?) >>+", re.S), r"\1"),
    *((re.compile(r"\b[BCEFILS]<([^<>]*)>"), r"\1"),) * 3,  # nested
)
RULES: dict[str, Rules] = {".txt": RST_RULES, ".rst": RST_RULES, ".md": MARKDOWN_RULES, ".pod": POD_RULES}
HTML_ENDINGS = (".html", ".htm", ".xhtml")
TEXT_ENDINGS = (*RULES, *HTML_ENDINGS)
SKIPPED_TAGS = {"script", "style", "nav", "footer", "pre", "table"}
HEADING_TAGS = ("title", "h1", "h2", "h3", "h4", "h5", "h6")  # by level
BLOCK_TAGS = set("address article aside blockquote body br dd div dl dt hr li main ol p section td tr ul".split())
SHINGLE = 8  # words that count as a repetition


@dataclass(frozen=True)
class Heading:
    """A heading, and the number of the document's paragraphs that stand before it."""

    text: str
    place: int


@dataclass(frozen=True)
class Document:
    """One document: its name, and its prose, with a paragraph on each line, which has no headings.

    Args:
        title: empty if it has none.
        headings: all others, in order.
    """

    name: str
    text: str
    title: str = ""
    headings: tuple[Heading, ...] = ()


class ProseParser(HTMLParser):
    """Collects the text of an HTML page in `parts`, with an empty line between blocks, without code and tables.

    Headings are marked.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped: list[str] = []
        self.in_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a block, a heading, or a part that is skipped."""
        if tag in SKIPPED_TAGS:
            self.skipped.append(tag)
        if tag in HEADING_TAGS and not self.skipped:
            self.in_heading = True
            self.parts.append(f"\n\n{MARK}{HEADING_TAGS.index(tag)} ")
        elif tag in SKIPPED_TAGS | BLOCK_TAGS:
            self.parts.append(" " if self.in_heading else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        """End a block, a heading, or a part that is skipped."""
        if tag in self.skipped:
            del self.skipped[self.skipped.index(tag) :]
        if tag in HEADING_TAGS:
            self.in_heading = False
        if tag in SKIPPED_TAGS | BLOCK_TAGS | {*HEADING_TAGS}:
            self.parts.append(" " if self.in_heading else "\n\n")

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


def find_files(paths: list[Path], endings: tuple[str, ...] = TEXT_ENDINGS) -> list[Path]:
    """Return the files that are named, and those of these endings in the folders that are named, in order.

    Raises:
        InputError: a path that does not exist.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise InputError(f"--text {path}: no such file or folder")
        inside = path.rglob("*") if path.is_dir() else [path]
        files += sorted(f for f in inside if f.is_file() and (f == path or ending(f) in endings))
    return list(dict.fromkeys(files))


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, unpacked if its name ends in .gz.

    Raises:
        OSError, EOFError, zlib.error, UnicodeDecodeError: it cannot be read.
    """
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix.lower() == ".gz" else data).decode("utf-8")


def make_document(name: str, text: str, kind: str) -> Document:
    """Return the title, the headings, and the paragraphs of a text that are prose, each on one line.

    A paragraph is prose if it has at least five words, ends like a sentence, and is mostly letters. The title of an
    HTML page is its first h1, or else the one in its head. The title of any other document is its first heading.

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
    paragraphs: list[str] = []
    found: list[tuple[int, Heading]] = []  # with the level
    for block in re.split(r"\n\s*\n", text):
        words = block.replace("\N{PILCROW SIGN}", "").split()
        if words and words[0].startswith(MARK):
            found.append((int(words[0][1:]), Heading(" ".join(words[1:]), len(paragraphs))))
        elif is_prose(" ".join(words)):
            paragraphs.append(" ".join(words))
    found = [(level, heading) for level, heading in found if heading.text]
    titles = sorted(found, key=lambda own: (1, 0).index(own[0]) if own[0] < 2 else 2)  # levels 1, 0, others
    title = titles[0][1].text if titles else ""
    headings = (heading for level, heading in found if level > 0 and heading.text != title)
    return Document(name, "\n".join(paragraphs), title, tuple(headings))


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph, on one line, is prose; see `make_document`."""
    letters = sum(c.isalpha() or c == " " for c in paragraph)
    is_sentence = re.search(r"[.!?:][)\"'”’]*$", paragraph) is not None
    return paragraph.count(" ") >= 4 and is_sentence and letters >= 0.9 * len(paragraph)


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
        document = make_document(str(file), text, ending(file))
        if not document.text or len(document.text.split()) < min_words:
            continue
        own = shingles(document.text)
        if len(own - seen) >= 0.5 * len(own):
            documents.append(document)
            seen |= own
    if not documents:
        where = " ".join(map(str, paths))
        least = f" of at least {min_words} words" if min_words > 1 else ""
        raise InputError(f"--text {where}: no document with English prose{least} among {len(files)} files")
    return documents
