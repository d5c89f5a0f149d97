"""From a CSV file to a header and rows: bytes, encoding, delimiter, quotes. What is broken is named by its line.

A file is taken as it is where it can be read in one way only (a byte order mark, a semicolon or a tab
between the columns, blank lines), and what was decided is noted. Where two ways are possible, nothing is
guessed: `TableError` says where, what, and what to do. Nothing is converted: "0456", "NA" and "1.0" stay
the texts that they are.
"""

import codecs
import csv
import difflib
import io
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_CELL = 10_000_000  # characters; csv's own limit, 131,072, is shorter than a long document
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MAGIC = {  # what a file begins with -> what it is, and what to do with it
    b"PK\x03\x04": (
        "a zip archive or an Excel workbook (.xlsx)",
        "open it and save the sheet as 'CSV UTF-8'",
    ),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook (.xls)", "open it and save the sheet as 'CSV UTF-8'"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it with gunzip"),
    b"BZh": ("compressed with bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with unzstd"),
    b"PAR1": ("a Parquet file", "write it with pandas.read_parquet(...).to_csv(..., index=False)"),
    b"%PDF": ("a PDF", "give the table itself"),
    b"SQLite format 3": ("an SQLite data base", "export the table as CSV"),
}
MARKS = {  # byte order marks; UTF-32 first, since UTF-16's is its beginning
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TableError(ValueError):
    """Something in a table that keeps it from being learned from: where it is, what it is, and the remedy."""


@dataclass(frozen=True)
class Row:
    """The cells of a row, and the line of the file on which it begins (from 1, as editors count)."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class RawTable:
    """What stands in a CSV file: names of columns, rows of as many cells, and notes of what was decided."""

    name: str
    header: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def counted(n: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"


def read_csv(
    path: str | Path, delimiter: str | None = None, encoding: str | None = None, wanted: Sequence[str] = ()
) -> RawTable:
    """Return the header and the rows of a CSV file.

    `delimiter` and `encoding` are found out where they are None (UTF-8, or what a byte order mark says);
    `wanted` are names of columns that help to find the delimiter. Raises TableError for a file that is
    none, holds something else than text, is empty, has no row below its header, a quote that is not
    closed, or a row with more or fewer cells than the header.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_text("text;label" + chr(10) + "fine, I think;good" + chr(10), encoding="utf-8")
    >>> read_csv(path).rows, read_csv(path).notes
    ([Row(line=2, cells=['fine, I think', 'good'])], ["the columns are separated by ';' (semicolon)"])
    """
    path, notes = Path(path), []
    text = _decode(path, encoding, notes)
    if delimiter is None:
        text, delimiter = _find_delimiter(text, wanted)
        if delimiter != ",":
            notes.append(f"the columns are separated by {delimiter!r} ({DELIMITERS.get(delimiter, 'sep=')})")
    elif len(delimiter) != 1 or delimiter in '"\r\n':
        raise TableError(f"--delimiter {delimiter!r}: give one character, such as ',' or ';', or 'tab'")
    rows = _parse(path.name, text, delimiter)
    filled = [row for row in rows if any(cell.strip() for cell in row.cells)]
    if len(filled) < len(rows):
        notes.append(f"{counted(len(rows) - len(filled), 'blank line')} skipped")
    if not filled:
        raise TableError(f"{path.name} has no header: put a line such as text,label above the rows")
    header, *filled = filled
    if not filled:
        raise TableError(
            f"{path.name} has one line only, {reprlib.repr(header.cells)}: below the header there must be a "
            "row for each text"
        )
    for row in filled:
        if len(row.cells) != len(header.cells):
            raise TableError(_ragged(path.name, header.cells, row, delimiter))
    return RawTable(path.name, header.cells, filled, notes)


def _decode(path: Path, encoding: str | None, notes: list[str]) -> str:
    """Return the text of a file; raise TableError where it is none."""
    content = _read_bytes(path)
    for magic, (what, remedy) in MAGIC.items():
        if content.startswith(magic):
            raise TableError(f"{path.name} is {what}, no CSV: {remedy}")
    marked = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if marked and marked != "utf-8-sig" and encoding is None:
        notes.append(f"the file was read as {marked.upper()}, as its first bytes say")
    chosen = marked or encoding or "utf-8"
    if not chosen.lower().replace("_", "-").startswith(("utf-16", "utf-32")) and b"\0" in content:
        _refuse_nul(path.name, content)
    try:
        text = content.decode(chosen)
    except UnicodeDecodeError as error:
        raise TableError(_undecodable(path.name, content, error)) from error
    except UnicodeError as error:  # of "punycode" and its like
        raise TableError(f"{path.name} cannot be read with --encoding {encoding}: {error}") from error
    except (LookupError, ValueError) as error:  # "hex" too, which is known and none of texts
        raise TableError(
            f"--encoding {encoding!r} is unknown: give one such as utf-8, cp1252 or gb18030"
        ) from error
    if not text.strip():
        raise TableError(
            f"{path.name} is empty: it needs a header, such as text,label, and a row for each text"
        )
    return text


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        tables = sorted(file.name for file in path.glob("*.csv"))[:3]
        raise TableError(
            f"{path} is a folder: give a CSV file" + (f" in it, such as {tables[0]}" if tables else "")
        )
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        there = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check its name and the folder you are in"
        raise TableError(f"there is no file {path}: {hint}") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or error}") from error


def _refuse_nul(name: str, content: bytes) -> None:
    """Say where a NUL byte is; many of them are UTF-16 without a mark."""
    place = content.index(b"\0")
    where = f"{name}, line {content.count(bytes([10]), 0, place) + 1}"
    if content.count(b"\0") > len(content) / 10:
        kind = "utf-16-be" if place % 2 == 0 else "utf-16-le"
        raise TableError(
            f"{where}: every second byte is NUL, so this seems to be UTF-16: add --encoding {kind}"
        )
    raise TableError(f"{where}: a NUL byte (\\x00), which no text has: the file is damaged; write it anew")


def _undecodable(name: str, content: bytes, error: UnicodeDecodeError) -> str:
    """Say where a byte fits into no character, and in which encoding it would."""
    newline = content.rfind(b"\n", 0, error.start)
    line, place = content.count(b"\n", 0, error.start) + 1, error.start - newline
    where = f"{name}, line {line}, byte {place}: 0x{content[error.start]:02x} is no {error.encoding.upper()}"
    runs = re.findall(rb"[\x80-\xff]+", content)
    alone = (
        sum(len(run) == 1 for run in runs) > len(runs) / 2
    )  # é among ASCII; Chinese comes in pairs of bytes
    others = ("cp1252", "gb18030")[:: 1 if alone else -1]
    for encoding in () if b"\0" in content else ("utf-8", *others):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        found = content[max(newline + 1, error.start - 12) : error.start + 12].decode(encoding, "ignore")
        shown = reprlib.repr(found.split("\n")[0].strip())
        return f"{where}. In {encoding} it would read {shown}: add --encoding {encoding}, or save as UTF-8"
    return f"{where}: save the file as UTF-8, or name its encoding with --encoding"


def _find_delimiter(text: str, wanted: Sequence[str]) -> tuple[str, str]:
    """Return the text (without a line 'sep=;', which Excel knows) and the delimiter of its first line."""
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if first.lower().startswith("sep=") and len(first.strip("\r")) == 5:
        return rest, first[4]
    names = {d: {cell.strip(' "').casefold() for cell in first.split(d)} for d in DELIMITERS}
    hits = {d: sum(name.strip().casefold() in found for name in wanted) for d, found in names.items()}
    best = max(
        DELIMITERS,
        key=lambda d: (hits[d] if len(names[d]) > 1 else 0, d == "," and len(names[d]) > 1, len(names[d])),
    )
    return text, best if len(names[best]) > 1 else ","


def _parse(name: str, text: str, delimiter: str) -> list[Row]:
    """Return all rows, each with the line where it begins."""
    rows, line = [], 1
    before = csv.field_size_limit(MAX_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            rows.append(Row(line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(_bad_quote(name, text, line, str(error))) from error
    finally:
        csv.field_size_limit(before)
    return rows


def _bad_quote(name: str, text: str, line: int, reason: str) -> str:
    start = re.split("\r\n|\n|\r", text)[
        line - 1 : line
    ]  # as csv counts lines, which str.splitlines does not
    shown = reprlib.repr(start[0]) if start else ""
    if "unexpected end" in reason or "field larger" in reason:
        return (
            f"{name}, line {line}: a quote is opened here and never closed, {shown}: close it, and write a "
            'quote inside of a quoted cell twice ("")'
        )
    return (
        f"{name}, line {line}: behind a closing quote the cell goes on, {shown}: write a quote inside of a "
        f'quoted cell twice (""), or look for a cell above that is not closed ({reason})'
    )


def _ragged(name: str, header: list[str], row: Row, delimiter: str) -> str:
    """Say what may have happened to a row with too many or too few cells."""
    many, wanted = len(row.cells), len(header)
    line = f"{name}, line {row.line}: {counted(many, 'cell')} where the header has {wanted} ({reprlib.repr(row.cells)})"
    if many > wanted:
        return f'{line}: put a text that holds {delimiter!r} between quotes, "..."'
    others = [d for d in DELIMITERS if d != delimiter and row.cells and row.cells[0].count(d) == wanted - 1]
    if others and many == 1:
        return (
            f"{line}: this row is separated by {others[0]!r} and the header by {delimiter!r}: use one of them"
        )
    return f"{line}: add what is missing, an empty cell too, or remove the row; a quote may be open above it"
