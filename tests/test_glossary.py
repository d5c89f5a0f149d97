"""The glossary names what the notebooks use, and the course says the usual terms."""

import re

import pytest
from notebook_tools import NOTEBOOKS, ROOT, read

GLOSSARY = ROOT / "notebooks" / "glossary.md"
ROW = re.compile(r"^\| \*\*(.+?)\*\*(?: \((.+?)\))? \| (.+?) \| \[(\w+)\]\((\w+)\.ipynb\) \| (.+?) \|$")
LINES = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("| **")]
ROWS = [ROW.match(line).groups() for line in LINES]
TEXTS = {
    path.stem: "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for path in NOTEBOOKS
}
LINK = "[glossary](glossary.md)"
ADDRESS = "https://github.com/llmcourse/llmcourse/blob/main/notebooks/glossary.md"

# Words of our own for what has a usual term.
UNUSUAL = {
    r"counted (?:[\w-]+ )?model|counted (?:pairs|trigrams)": "n-gram model",
    r"(?<!also called a )(?<![\w-])(?:learning-)?rate finder": "learning-rate range test",
    r"straight fall|fall(?:s|ing)? in a straight line": "linear decay",
    r"tables? of (?:attention )?weights": "attention matrix",
    r"\b(?:bfloat16|float16|16-bit) products?\b": "matrix product",
}


def uses(text: str, name: str) -> bool:
    """Say whether a text uses a term, also in the plural, with a hyphen or a space."""
    words = re.escape(name).replace(r"\ ", "[ -]").replace(r"\-", "[ -]")
    return re.search(rf"(?<![\w-]){words}(?:s|es)?(?!\w)", text, flags=re.IGNORECASE) is not None


def test_it_is_a_sorted_table_of_different_terms():
    terms = [row[0] for row in ROWS]
    assert len(terms) >= 90
    assert terms == sorted(terms, key=str.lower)
    names = [name.lower() for row in ROWS for name in (row[0], *(row[1] or "").split(", ")) if name]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_chapter_exists_and_uses_its_term(row):
    term, others, sentence, label, chapter, chinese = row
    assert label == chapter
    assert any(uses(TEXTS[chapter], name) for name in (term, *(others or "").split(", ")) if name)
    assert re.fullmatch(r"[^.].*[^.]\.", sentence), "one sentence"
    assert len(re.findall(r"[.!?](?: |$)", sentence)) == 1, "one sentence"
    assert re.search(r"[\u4e00-\u9fff]", chinese)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_notebook_links_to_it(path):
    """By its path, and by an address for a copy that has no neighbours."""
    recap = read(path).cells[-1].source
    assert LINK in recap
    assert f"({ADDRESS})" in recap


def own_words() -> dict[str, str]:
    """Return all text that the course writes: notebooks with outputs, README, code and cards."""
    texts = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    for path in NOTEBOOKS:
        cells = read(path).cells
        printed = [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
        texts[path.name] = "\n".join([cell.source for cell in cells] + printed)
    for folder, suffix in (("llmcourse", "py"), ("benchmarks", "py"), ("benchmarks", "md"), ("data", "md")):
        for path in sorted((ROOT / folder).rglob(f"*.{suffix}")):
            texts[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    return texts


def test_the_course_says_the_usual_terms():
    found = [
        f"{name}: {match.group()!r}: say {usual!r}"
        for name, text in own_words().items()
        for pattern, usual in UNUSUAL.items()
        for match in re.finditer(pattern, text, flags=re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("two n-gram models", "n-gram model", True),
        ("mixed-precision training", "mixed precision", True),
        ("a 5-gram model", "gram model", False),
        ("the value", "values", False),
    ],
)
def test_how_a_term_is_found(text, name, expected):
    assert uses(text, name) is expected
