"""From rows of cells to texts with labels: which column is which, and whether one can learn from them.

Dimensions: N rows, K classes.
"""

import difflib
import re
import reprlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.finetune.table.read import RawTable, TableError, counted, read_csv

TEXT_NAMES = (
    "text", "texts", "sentence", "review", "content", "comment", "message", "body", "document", "tweet",
    "文本", "内容", "评论",
)  # fmt: skip
LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "标签", "类别")
LEAST_ROWS, LEAST_OF_A_CLASS, MOST_CLASSES = 40, 10, 100


@dataclass(frozen=True)
class Table:
    """N texts with labels, as they stand in the file; `groups` (N,) or None; `lines` (N,) of the file.

    `classes` are the K different labels in their order: as numbers where all are whole numbers, else as
    texts. `columns` names the columns that were used; `notes` say what was decided and what was found.
    """

    name: str
    texts: list[str]
    labels: list[str]
    groups: list[str] | None
    lines: list[int]
    classes: list[str]
    columns: dict[str, str]
    notes: list[str]


def read_table(
    path, text: str | None = None, label: str | None = None, group: str | None = None,
    delimiter: str | None = None, encoding: str | None = None,
) -> Table:  # fmt: skip
    """Return the texts and labels of a CSV file; raise TableError, before any training, for every fault.

    Columns are found by their usual names (`TEXT_NAMES`, `LABEL_NAMES`) unless they are told. Rows with
    the same `group` belong together, as reviews of one film do.
    """
    told = [name for name in (text, label, group) if name is not None]
    if repeated := [name for name, n in Counter(told).items() if n > 1]:
        raise TableError(
            f"the column {repeated[0]!r} is given twice: text, label and group are three columns"
        )
    raw = read_csv(path, delimiter, encoding, wanted=told or (*TEXT_NAMES, *LABEL_NAMES))
    places = {
        "text": find_column(raw, text, "text", TEXT_NAMES),
        "label": find_column(raw, label, "label", LABEL_NAMES),
    }
    if group is not None:
        places["group"] = find_column(raw, group, "group", ())
    columns = {what: raw.header[place] for what, place in places.items()}
    cells = {what: [row.cells[place].strip() for row in raw.rows] for what, place in places.items()}
    lines, notes = [row.line for row in raw.rows], list(raw.notes)
    if blanks := [name for name in columns.values() if name != name.strip()]:
        notes.append(f"blanks around the name of the column {blanks[0]!r} do not count")
    if any(row.cells[places["label"]] != label for row, label in zip(raw.rows, cells["label"], strict=True)):
        notes.append("blanks around labels do not count")
    for what, values in cells.items():
        _refuse_empty(raw.name, columns[what], values, lines)
    _refuse_few_rows(raw.name, len(lines))
    _refuse_near_labels(raw.name, columns["label"], cells["label"], lines)
    _refuse_labels(raw.name, columns["label"], cells["label"], lines)
    _refuse_few_texts(raw.name, columns["text"], cells["text"])
    if group is not None:
        _refuse_groups(raw.name, columns, cells)
    notes += _notes_on_texts(cells["text"], cells["label"])
    classes = order_classes(set(cells["label"]))
    return Table(raw.name, cells["text"], cells["label"], cells.get("group"), lines, classes, columns, notes)


def order_classes(labels) -> list[str]:
    """Return the different labels in order: whole numbers by their size, else as texts.

    >>> order_classes({"10", "1", "2"}), order_classes({"10", "1", "2", "NA"})
    (['1', '2', '10'], ['1', '10', '2', 'NA'])
    """
    if all(re.fullmatch(r"-?[0-9]{1,15}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def same_text(text: str) -> str:
    """Return what two texts have in common that differ in case and blanks alone.

    >>> same_text("A  fine Film ")
    'a fine film'
    """
    return " ".join(text.casefold().split())


def find_column(raw: RawTable, given: str | None, what: str, known: Sequence[str]) -> int:
    """Return the place of a column: the one that was told (`given`), or the one with a `known` name.

    Raises TableError for one that is not there, that stands there twice, and where several would do.
    """
    names = [name.strip() for name in raw.header]
    folded = [name.casefold() for name in names]
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    if given is not None:
        places = [i for i, name in enumerate(names) if name == given.strip()]
        places = places or [i for i, name in enumerate(folded) if name == given.strip().casefold()]
        missing = f"there is no column {given!r}"
    else:
        places = [i for i, name in enumerate(folded) if name in known]
        missing = f"no column has a usual name for the {what}s ({', '.join(known[:5])}, ...)"
    found = {names[i] for i in places}
    if len(found) > 1:
        raise TableError(
            f"{raw.name}: {_and(sorted(found))} could all hold the {what}s: say which, --{what} NAME"
        )
    if len(places) > 1:
        raise TableError(
            f"{raw.name}, line 1: the column {names[places[0]]!r} stands there twice, as column "
            f"{places[0] + 1} and {places[1] + 1}: rename or remove one"
        )
    if places:
        return places[0]
    if _looks_like_data(raw):
        raise TableError(
            f"{raw.name}, line 1: {missing}, and the first line seems to be a row, {reprlib.repr(raw.header)}: "
            "put a header such as text,label above it"
        )
    near = difflib.get_close_matches((given or what).casefold(), folded, n=1, cutoff=0.6)
    hint = f"did you mean {names[folded.index(near[0])]!r}?" if near else f"say which, --{what} NAME"
    raise TableError(f"{raw.name}, line 1: {missing}; the columns are {shown}: {hint}")


def _looks_like_data(raw: RawTable) -> bool:
    """Return whether the header is a row: a number, a long text, or a value that comes again below it."""
    for i, name in enumerate(raw.header):
        below = {row.cells[i].strip() for row in raw.rows}
        if (
            re.fullmatch(r"-?\d+([.,]\d+)?", name.strip())
            or len(name) > 60
            or (name.strip() and name.strip() in below)
        ):
            return True
    return False


def _refuse_empty(name: str, column: str, values: list[str], lines: list[int]) -> None:
    empty = [line for value, line in zip(values, lines, strict=True) if not value]
    if empty:
        more = f" (and {len(empty) - 1:,} more, such as line {empty[1]})" if len(empty) > 1 else ""
        raise TableError(
            f"{name}, line {empty[0]}, column {column!r}: the cell is empty{more}: fill it in, or remove the row"
        )


def _refuse_few_rows(name: str, n: int) -> None:
    if n < LEAST_ROWS:
        raise TableError(
            f"{name} has {counted(n, 'row')}: at least {LEAST_ROWS} are needed to train on most of them and to "
            "test on others; several hundred are better"
        )


def _refuse_few_texts(name: str, column: str, texts: list[str]) -> None:
    """Refuse a column of texts that holds few values, or numbers: often the wrong column."""
    different = len(set(texts))
    numbers = sum(bool(re.fullmatch(r"[-+]?[\d.,]+", text)) for text in texts)
    if different < LEAST_OF_A_CLASS or numbers > 0.9 * len(texts):
        raise TableError(
            f"{name}, column {column!r}: {different} different texts in {len(texts):,} rows, such as "
            f"{reprlib.repr(texts[0])}: is this the column of the texts? Say which with --text and --label"
        )


def _label_key(label: str) -> str:
    """Return what two labels have in common that look the same: é in one sign or two, １ and 1, 1.0 and 1."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    return re.sub(r"^(-?\d+)\.0+$", r"\1", same_text(seen))


def _refuse_near_labels(name: str, column: str, labels: list[str], lines: list[int]) -> None:
    """Refuse two ways to write one label: case, blanks, 1 and 1.0."""
    spellings: dict[str, Counter] = defaultdict(Counter)
    for label in labels:
        spellings[_label_key(label)][label] += 1
    for counts in spellings.values():
        if len(counts) > 1:
            (often, n), *others = counts.most_common()
            rare, m = others[0]
            raise TableError(
                f"{name}, line {lines[labels.index(rare)]}, column {column!r}: {rare!r} ({counted(m, 'row')}) and {often!r} "
                f"({counted(n, 'row')}) differ in case, blanks or form only: write one label in one way"
            )


def _refuse_labels(name: str, column: str, labels: list[str], lines: list[int]) -> None:
    counts = Counter(labels)
    where = f"{name}, column {column!r}"
    if len(counts) == 1:
        raise TableError(f"{where}: all {len(labels):,} labels are {labels[0]!r}: two classes are needed")
    if len(counts) > MOST_CLASSES or len(counts) > len(labels) / LEAST_OF_A_CLASS * 2:
        raise TableError(
            f"{where}: {len(counts):,} different values in {len(labels):,} rows, such as {reprlib.repr(labels[0])}: "
            f"free text, an id or a measurement, not classes (at most {MOST_CLASSES}). Say which column with --label"
        )
    rare, n = min(counts.items(), key=lambda item: item[1])
    if n < LEAST_OF_A_CLASS:
        raise TableError(
            f"{name}, line {lines[labels.index(rare)]}, column {column!r}: {rare!r} has {counted(n, 'row')}, "
            f"and each class needs {LEAST_OF_A_CLASS}: add rows, remove them, or join the class to another"
        )


def _refuse_groups(name: str, columns: dict, cells: dict) -> None:
    """Refuse groups that cannot be put on three sides, or that give the label away."""
    groups, labels = cells["group"], cells["label"]
    where, different = f"{name}, column {columns['group']!r}", len(set(groups))
    if different == len(set(labels)) == len(set(zip(groups, labels, strict=True))):
        raise TableError(
            f"{where} says the same as the label {columns['label']!r}: give a column of what belongs together"
        )
    if different < 4:
        raise TableError(
            f"{where}: {counted(different, 'group')} in {len(groups):,} rows, such as {groups[0]!r}; at "
            "least 4 are needed, for training, validation and two in the test: give another column, or none"
        )


def _notes_on_texts(texts: list[str], labels: list[str]) -> list[str]:
    """Return what must be said of texts that come twice."""
    found: dict[str, set] = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        found[same_text(text)].add(label)
    notes, copies = [], len(texts) - len(found)
    if copies:
        notes.append(
            f"{counted(copies, 'row')} with a text that stands above; all rows of a text are on one side of the split"
        )
    if double := sum(len(each) > 1 for each in found.values()):
        notes.append(
            f"{counted(double, 'text')} {'has' if double == 1 else 'have'} two labels or more: no model can be right about all of their rows"
        )
    return notes


def _and(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" and {names[-1]!r}"
