"""Web text as it comes: pages of a dump, text out of markup, and a reader's own files."""

import bz2
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmcourse.data.manifest import Files, fetch

WORDS = [
    "river",
    "city",
    "people",
    "water",
    "stone",
    "music",
    "number",
    "animal",
    "history",
    "language",
    "country",
    "winter",
    "science",
    "art",
]
FRAME = '<mediawiki xml:lang="{}">{}</mediawiki>'


@dataclass(frozen=True)
class Page:
    """A page of a dump: its title, the language of the dump, and its wiki markup."""

    title: str
    language: str
    markup: str


def stand_in_dump(n_pages: int = 60, n_sections: int = 12, seed: int = 0) -> Files:
    """Return a generated dump in the form of the real one: enough for every notebook to run."""
    rng = random.Random(seed)

    def sentence() -> str:
        a, b, c, d = rng.sample(WORDS, 4)
        return f"The {a} of the [[{b}]] is known for its '''{c}''' and has been with the {d} in {rng.randint(1000, 2000)}."

    def page(number: int) -> str:
        parts = (
            f"== Part {part} ==\n" + " ".join(sentence() for _ in range(9)) for part in range(n_sections)
        )
        body = "\n\n".join(["{{Infobox|name=x}}", *parts, f"[[Category:Page {number}]]"])
        return f"<page><title>Stand-in {number}</title><revision><text>{body}</text></revision></page>"

    english = FRAME.format("en", "".join(page(number) for number in range(n_pages)))
    other = "<page><title>Друга страница</title><revision><text>{}</text></revision></page>"
    bulgarian = FRAME.format("bg", other.format("Това е страница на български език. " * 100))
    texts = {"enwiki": english.encode("utf-8"), "bgwiki": bulgarian.encode("utf-16")}
    return {f"generated/{name}.xml.bz2": bz2.compress(text) for name, text in texts.items()}


def decode_utf(content: bytes) -> str:
    """Return the text of UTF-8 bytes, or of UTF-16 bytes that say so in their first two bytes.

    Raises ValueError that names the place of the first byte that fits neither.

    >>> decode_utf("né".encode("utf-16")) == decode_utf("né".encode("utf-8")) == "né"
    True
    """
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} of the text is {content[error.start]:#04x}, which is not {encoding.upper()}: "
            "find out the encoding (a guess: chardet or charset-normalizer) and save it as UTF-8"
        ) from None


def unix_lines(text: str) -> str:
    """Return a text whose lines end in a newline alone, not in the two characters of Windows or in a bare return."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def load_wikipedia(quiet: bool = False) -> list[Page]:
    """Return the pages of the dump, redirects left out, in their order; says where they came from."""
    import xml.etree.ElementTree as ElementTree

    pages = []
    for content in fetch("wikipedia", generate=stand_in_dump, quiet=quiet).files.values():
        language = "en"
        for event, element in ElementTree.iterparse(
            io.StringIO(decode_utf(bz2.decompress(content))), ["start", "end"]
        ):
            tag = element.tag.rsplit("}", 1)[-1]
            if tag == "mediawiki" and event == "start":
                language = element.get("{http://www.w3.org/XML/1998/namespace}lang") or "en"
            elif tag == "page" and event == "end":
                found = {child.tag.rsplit("}", 1)[-1]: child.text or "" for child in element.iter()}
                if not found["text"].lstrip().upper().startswith("#REDIRECT"):
                    pages.append(Page(found["title"], language, found["text"]))
                element.clear()
    return pages


# The opening tag of a reference: a slash, or in quotes a ">", may stand in its name.
REFERENCE = re.compile(
    r"""<!--|<(ref(?:erences)?)(?=[\s/>])(?:(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>|[^<>]*+>)""", re.IGNORECASE
)
TABLE = re.compile(r"^\{\|", re.MULTILINE)
# Categories, files, and the same page in other languages, with one level of links inside.
APART = re.compile(r"\[\[(?:Category|File|Image|[a-z-]{2,12}):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]")


def _end_of_reference(opening: re.Match) -> str:
    if opening.group().endswith("/>"):
        return ""  # closed by itself
    return rf"(?i)</{opening[1]}\s*>" if opening[1] else "-->"


def _without(markup: str, opening: re.Pattern, end_of: Callable[[re.Match], str]) -> str:
    """Return markup without what lies from each opening to its end, in one pass; what never ends stays."""
    parts, at, look, absent = [], 0, 0, set()
    while found := opening.search(markup, look):
        look, closing = found.end(), end_of(found)
        if closing in absent:
            continue
        if end := re.compile(closing, re.MULTILINE).search(markup, look):
            parts.append(markup[at : found.start()])
            look = at = end.end()
        else:
            absent.add(closing)
    return "".join(parts) + markup[at:]


def extract_text(markup: str) -> str:
    """Return the plain text of wiki markup: no templates, no references, links by their words.

    The parser is mwparserfromhell; tables, categories and files, which it keeps, go first.

    >>> extract_text("'''Albedo''' is a [[ratio|measure]].{{cite|x}}<ref>y</ref>")
    'Albedo is a measure.'
    """
    import mwparserfromhell

    markup = _without(unix_lines(markup), REFERENCE, _end_of_reference)
    # What has no end is text, and the parser is not to look for its end.
    markup = re.sub(r"(?i)<(?=!--|ref(?:erences)?[\s/>]|[^<>]*(?:<|\Z))", "&lt;", markup)
    markup = _without(markup, TABLE, lambda opening: r"^\|\}").replace("\n{|", "\n{&#124;")
    markup = APART.sub("", markup)
    for opening, closing in (("{{", "}}"), ("[[", "]]")):
        before, end, rest = markup.rpartition(closing)
        markup = before + end + rest.replace(opening, f"&#{ord(opening[0])};" * 2)
    text = mwparserfromhell.parse(markup).strip_code()
    text = "\n".join(line.strip(" ") for line in text.split("\n"))
    text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def sections(page: Page) -> list[str]:
    """Return the markup of a page cut at its headings, each heading with its section."""
    parts = re.split(r"^(?==+[^=\n]+=+ *$)", unix_lines(page.markup), flags=re.MULTILINE)
    return [part.strip() for part in parts if part.strip()]


def read_documents(path: str | Path, field: str = "text") -> Iterator[str]:
    """Yield documents of a UTF-8 file one by one: lines of .jsonl by `field`, else whole paragraphs.

    Only one document is in memory, so a file may be larger than memory. Blank lines are skipped, and
    half of a surrogate pair, which JSON allows and no encoding does, becomes U+FFFD. Lines end as
    `unix_lines` has it. Raises FileNotFoundError, and ValueError for a file without a document, other
    encodings, lines that are not JSON, lack the field or hold no text in it: each names the line and
    the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check its name and folder")
    is_json = path.suffix.lower() in (".jsonl", ".ndjson")
    paragraph: list[str] = []
    found = False
    for number, line in enumerate(_lines(path), 1):
        blank = not line.strip()
        found = found or not blank
        if is_json and not blank:
            yield _json_text(line, field, f"{path}, line {number}")
        elif not blank:
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph)
    if not found:
        raise ValueError(f"{path} is empty: it must hold at least one document")


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8").removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: byte {raw[error.start]:#04x} is not UTF-8. Convert the file first, "
                    "for example with iconv -f gb18030 -t utf-8"
                ) from None
            if "\0" in line:  # UTF-16 without a mark, of English letters, can be read as UTF-8
                raise ValueError(
                    f"{path}, line {number} holds the byte 0, as UTF-16 does and no text in UTF-8. Convert the "
                    "file first, for example with iconv -f utf-16le -t utf-8"
                )
            yield from unix_lines(line).removesuffix("\n").split("\n")


def _json_text(line: str, field: str, place: str) -> str:
    try:
        text = json.loads(line)[field]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{place}: expected JSON with the field {field!r}, found {line[:40]!r} ({error})"
        ) from None
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: the field {field!r} is {json.dumps(text)[:40]}: it must be a text. Leave the line out, "
            "or write its text there"
        )
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
