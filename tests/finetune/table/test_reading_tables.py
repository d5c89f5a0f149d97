"""Reading a reader's CSV: what is taken as it is, and for each fault an error with place, value and remedy."""

import csv
import gzip
import io

import pytest

from llmcourse.finetune.table.columns import order_classes, read_table
from llmcourse.finetune.table.read import TableError, read_csv

ADJECTIVES = ("warm", "dull", "clever", "clumsy", "moving", "noisy")


def rows(n=60, labels=("bad", "good")):
    return [[f"A {ADJECTIVES[i % 6]} film, number {i}", labels[i % len(labels)]] for i in range(n)]


def as_csv(table, header=("text", "label"), delimiter=","):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([header, *table])
    return out.getvalue()


def changed(place, column, value, table=None):
    """Return a good table with one cell changed; row `place` of it is line place + 2 of the file."""
    table = table or rows()
    table[place][column] = value
    return table


def save(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


THREE = ("text", "label", "film")
FILMS = [[*row, f"film {i % 7}"] for i, row in enumerate(rows())]
WITH_UMLAUT = as_csv(changed(4, 0, "Ein schöner Film über Käse"))
CHINESE = as_csv([[f"这部电影很好看,第{i}次", ["好", "坏"][i % 2]] for i in range(60)])

FAULTS = {  # name -> (content, arguments, words that must be said)
    "empty file": ("", {}, ("t.csv is empty", "text,label")),
    "blanks only": ("\n \n", {}, ("t.csv is empty",)),
    "header only": ("text,label\n", {}, ("one line only", "a row for each text")),
    "delimiters only": (",,\n,,\n", {}, ("no header",)),
    "no header": (as_csv(rows()[1:], header=rows()[0]), {}, ("line 1", "seems to be a row", "put a header")),
    "missing column": (as_csv(rows()), dict(text="txt"), ("line 1", "'txt'", "did you mean 'text'?")),
    "no usual name": (as_csv(rows(), ("foo", "label")), {}, ("'foo', 'label'", "--text NAME")),
    "two usual names": (
        as_csv([[*row, row[0]] for row in rows()], ("text", "label", "review")), {},
        ("'review' and 'text'", "--text NAME"),
    ),
    "duplicate header": (
        as_csv([[*row, "x"] for row in rows()], ("text", "label", "label ")), {},
        ("line 1", "'label'", "twice", "column 2 and 3"),
    ),
    "column given twice": (as_csv(rows()), dict(text="text", label="text"), ("'text' is given twice",)),
    "comma without quotes": (
        as_csv(rows()).replace('"A clever film, number 2"', "A clever film, number 2"), {},
        ("line 4", "3 cells where the header has 2", "between quotes"),
    ),
    "too few cells": (as_csv(rows()) + "only a text\n", {}, ("line 62", "1 cell where", "only a text")),
    "other delimiter below": (
        "text,label\n" + as_csv(rows(), delimiter=";").split("\n", 1)[1].replace(",", ""), {},
        ("line 2", "separated by ';'", "header by ','"),
    ),
    "unclosed quote": (
        as_csv(rows()[:5]) + '"never closed,good\n' + as_csv(rows(), header=rows()[0]).replace('"', ""), {},
        ("line 7", "never closed", '("")'),
    ),
    "quote inside of quotes": (
        as_csv(rows()[:5]) + '"the "best" film",good\n', {}, ("line 7", "closing quote", '("")'),
    ),
    "latin-1": (WITH_UMLAUT.encode("latin-1"), {}, ("line 6", "0xf6", "sch", "--encoding cp1252")),
    "gb18030": (CHINESE.encode("gb18030"), {}, ("line 2", "--encoding gb18030")),
    "UTF-16 without mark": (as_csv(rows()).encode("utf-16-le"), {}, ("line 1", "--encoding utf-16-le")),
    "UTF-16 BE without mark": (as_csv(rows()).encode("utf-16-be"), {}, ("--encoding utf-16-be",)),
    "NUL byte": (as_csv(rows()).encode() + b"a\0b,good\n", {}, ("line 62", "NUL", "damaged")),
    "unknown encoding": (as_csv(rows()), dict(encoding="utf-7000"), ("utf-7000", "cp1252")),
    "delimiter of two signs": (as_csv(rows()), dict(delimiter="||"), ("'||'", "one character")),
    "xlsx": (b"PK\x03\x04....", {}, ("Excel workbook", "CSV UTF-8")),
    "xls": (b"\xd0\xcf\x11\xe0....", {}, ("(.xls)", "CSV UTF-8")),
    "gz": (gzip.compress(as_csv(rows()).encode()), {}, ("gzip", "gunzip")),
    "parquet": (b"PAR1....", {}, ("Parquet", "to_csv")),
    "empty text": (as_csv(changed(3, 0, " ")), {}, ("line 5, column 'text'", "empty", "remove the row")),
    "empty texts": (as_csv(changed(9, 0, "", changed(3, 0, ""))), {}, ("line 5", "1 more, such as line 11")),
    "empty label": (as_csv(changed(7, 1, "")), {}, ("line 9, column 'label'", "empty")),
    "one class": (as_csv(rows(labels=("good",))), {}, ("all 60 labels are 'good'", "two classes")),
    "rare class": (as_csv(changed(7, 1, "so-so")), {}, ("line 9", "'so-so' has 1 row,", "join the class")),
    "labels by case": (as_csv(changed(9, 1, "Good ")), {}, ("line 11", "'Good' (1 row)", "'good' (29 rows)")),
    "labels by blanks": (
        as_csv(changed(9, 1, "not  good", rows(labels=("bad", "not good")))), {}, ("line 11", "'not  good'"),
    ),
    "1 and 1.0": (as_csv(changed(9, 1, "1.0", rows(labels=("0", "1")))), {}, ("line 11", "'1.0'", "'1'")),
    "labels are free text": (
        as_csv(rows(), ("label", "text")), {}, ("60 different values in 60 rows", "--label"),
    ),
    "labels are measurements": (
        as_csv([[text, f"{i / 7:.3f}"] for i, (text, _) in enumerate(rows())]), {}, ("60 different values", "measurement"),
    ),
    "texts are numbers": (
        as_csv([[str(i), label] for i, (_, label) in enumerate(rows())]), {}, ("column 'text'", "'0'", "--text"),
    ),
    "few texts": (as_csv([[label, label] for _, label in rows()]), {}, ("2 different texts in 60 rows",)),
    "few rows": (as_csv(rows(20)), {}, ("20 rows", "at least 40")),
    "one row": (as_csv(rows(1)), {}, ("1 row:",)),
    "group is the label": (
        as_csv([[text, label, label.upper()] for text, label in rows()], THREE), dict(group="film"),
        ("column 'film'", "same as the label 'label'"),
    ),
    "one group": (
        as_csv([[*row, "x"] for row in rows()], THREE), dict(group="film"), ("1 group in 60 rows", "at least 4"),
    ),
    "empty group": (as_csv(changed(5, 2, "", [list(r) for r in FILMS]), THREE), dict(group="film"), ("line 7, column 'film'",)),
    "no encoding of texts": (as_csv(rows()), dict(encoding="hex"), ("--encoding 'hex' is unknown", "gb18030")),
    "an encoding that cannot": (as_csv(rows()), dict(encoding="punycode"), ("--encoding punycode",)),
    "UTF-8 called UTF-32": (as_csv(rows()), dict(encoding="utf-32"), ("add --encoding utf-8",)),
    "a cut UTF-16": (as_csv(rows()).encode("utf-16")[:-1], {}, ("is no UTF-16", "name its encoding")),
    "é in one sign and in two": (as_csv(changed(6, 1, "cafe\u0301", rows(labels=("x", "caf\u00e9")))), {}, ("line 8", "form only")),
    "full-width digits": (as_csv(changed(6, 1, "１", rows(labels=("0", "1")))), {}, ("line 8", "form only")),
    "a blank of no width": (as_csv(changed(6, 1, "good\u200b")), {}, ("line 8", "form only")),
    "missing group": (as_csv(FILMS, THREE), dict(group="flim"), ("'flim'", "did you mean 'film'?")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_a_remedy(fault, tmp_path):
    content, arguments, words = FAULTS[fault]
    with pytest.raises(TableError) as caught:
        read_table(save(tmp_path, content), **arguments)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message) < 330


def test_what_is_no_file(tmp_path):
    save(tmp_path, as_csv(rows()), "reviews.csv")
    with pytest.raises(TableError, match=r"no file .*rewiews.csv: did you mean 'reviews.csv'\?"):
        read_csv(tmp_path / "rewiews.csv")
    with pytest.raises(TableError, match=r"is a folder: give a CSV file in it, such as reviews\.csv"):
        read_csv(tmp_path)
    with pytest.raises(TableError, match="check its name and the folder"):
        read_csv(tmp_path / "nowhere" / "t.csv")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(TableError, match="cannot be read: Permission denied"):
        read_csv(save_text(tmp_path))


def save_text(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write(as_csv(rows()))
    return path


UNUSUAL = {  # name -> (content, arguments, a note)
    "semicolons": (as_csv(rows(), delimiter=";"), {}, "separated by ';' (semicolon)"),
    "tabs": (as_csv(rows(), delimiter="\t"), {}, r"separated by '\t' (tab)"),
    "bars": (as_csv(rows(), delimiter="|"), {}, "separated by '|' (bar)"),
    "sep line of Excel": ("sep=;\r\n" + as_csv(rows(), delimiter=";"), {}, "separated by ';'"),
    "any delimiter, told": (as_csv(rows(), delimiter="^"), dict(delimiter="^"), None),
    "byte order mark": (as_csv(rows()).encode("utf-8-sig"), {}, None),
    "UTF-16 of Excel": (as_csv(rows(), delimiter="\t").encode("utf-16"), {}, "read as UTF-16"),
    "latin-1, told": (as_csv(rows()).encode("latin-1"), dict(encoding="latin-1"), None),
    "Windows line ends": (as_csv(rows()).replace("\n", "\r\n"), {}, None),
    "old Mac line ends": (as_csv(rows()).replace("\n", "\r"), {}, None),
    "blank lines": (as_csv(rows()).replace("\n", "\n\n"), {}, "61 blank lines skipped"),
    "blanks in the header": (as_csv(rows(), (" text", "label ")), {}, "blanks around the name of the column"),
    "blanks around labels": (as_csv([[t, f" {y} "] for t, y in rows()]), {}, "blanks around labels"),
    "upper case": (as_csv(rows(), ("Text", "LABEL")), {}, None),
    "other names, told": (as_csv(rows(), ("Was man sagt", "Urteil")), dict(text="was man sagt", label="Urteil"), None),
    "duplicate column that nobody asks for": (as_csv([[*r, 1, 2] for r in rows()], ("text", "label", "x", "x")), {}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_can_be_read_in_one_way_only_is_taken_and_said(name, tmp_path):
    content, arguments, note = UNUSUAL[name]
    table = read_table(save(tmp_path, content), **arguments)
    assert [[text, label] for text, label in zip(table.texts, table.labels, strict=True)] == rows()
    assert any(note in each for each in table.notes) if note else not table.notes


def test_nothing_is_converted(tmp_path):
    table = read_table(save(tmp_path, as_csv(rows(labels=("0456", "NA", "None", "1.50")))))
    assert table.classes == ["0456", "1.50", "NA", "None"]
    assert table.labels[:4] == ["0456", "NA", "None", "1.50"]
    assert read_table(save(tmp_path, as_csv(changed(0, 0, "NA")))).texts[0] == "NA"


def test_numbers_are_ordered_as_numbers():
    assert order_classes({str(n) for n in range(12)}) == [str(n) for n in range(12)]
    assert order_classes({"-1", "0", "1"}) == ["-1", "0", "1"]
    assert order_classes({"1", "10", "2", "two"}) == ["1", "10", "2", "two"]


def test_lines_are_those_of_the_file(tmp_path):
    table = rows()
    table[3][0] = "a text\nof three\nlines"
    found = read_table(save(tmp_path, as_csv(table)))
    assert found.lines[:6] == [2, 3, 4, 5, 8, 9]
    assert found.texts[3] == "a text\nof three\nlines"
    table[5][1] = ""
    with pytest.raises(TableError, match="line 9, column 'label'"):
        read_table(save(tmp_path, as_csv(table)))


def test_texts_that_come_twice_are_counted(tmp_path):
    table = [*rows(), ["a CLEVER film,  number 2", "good"], [rows()[5][0], "good"], [rows()[5][0], "good"]]
    notes = read_table(save(tmp_path, as_csv(table))).notes
    for note, words in zip(
        notes, ("3 rows with a text that stands above", "1 text has two labels"), strict=True
    ):
        assert note.startswith(words)


def test_a_long_cell_is_read(tmp_path):
    long = "very " * 40_000
    assert read_table(save(tmp_path, as_csv(changed(1, 0, long)))).texts[1] == long.strip()
    assert csv.field_size_limit() == 131_072, "another program's limit stays"
