"""State how long each notebook takes to study, in its head and in README: `python tools/study_minutes.py`.

Two rates, which come near to the minutes that careful readings of eight chapters took (12 to 75, 332 in
all; the estimates give 327): 100 words a minute, formulas and figures included, and a minute for each
cell of code with its output. Exercises count with the minutes that stand at each, and their cells not
again. Rounded to 5 minutes. The contract test compares what a head states with what this computes.
"""

import re
from pathlib import Path

import nbformat

from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
WORDS_A_MINUTE, CELLS_A_MINUTE = 100, 1
LINE = "*To study: about {} minutes, with the exercises.*"
STATED = re.compile(r"^\*To study: about (\d+) minutes, with the exercises\.\*$", re.MULTILINE)
EXERCISE = re.compile(r"\*\*Exercise \S+\*\* \((\d+) minutes?,")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def study_minutes(notebook) -> float:
    """Return the estimated minutes to study a notebook, exercises included.

    >>> cells = [nbformat.v4.new_markdown_cell("word " * 200), nbformat.v4.new_code_cell("1 + 1")]
    >>> cells.append(nbformat.v4.new_markdown_cell("> **Exercise 00-mean** (4 minutes, difficulty 1)."))
    >>> cells.append(nbformat.v4.new_code_cell("check('00-mean', answer)"))
    >>> round(study_minutes(nbformat.v4.new_notebook(cells=cells)), 1)
    7.0
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = WORD.findall(re.sub(r"\]\([^)]*\)|https?://\S+", "", text))
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    read = [source for source in code if "check(" not in source and "set_up(" not in source]
    exercises = sum(map(int, EXERCISE.findall(text)))
    return len(words) / WORDS_A_MINUTE + len(read) / CELLS_A_MINUTE + exercises


def main() -> None:
    """Write the minutes into the heads and into README's table, and print them."""
    readme, total = README.read_text(encoding="utf-8"), 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        minutes = 5 * round(study_minutes(notebook) / 5)
        head = notebook.cells[0]
        rest = re.sub(STATED.pattern + r"\n+", "", head.source, flags=re.MULTILINE)
        source = rest.replace("*Measured:", LINE.format(minutes) + "\n*Measured:", 1)
        if source != head.source:
            head.source = source
            with atomic_write(path) as temporary:
                nbformat.write(notebook, temporary)
        row = rf"(^\| \[{path.stem}\]\(.*\| )\d+( min \|)"
        readme = re.sub(row, rf"\g<1>{minutes}\g<2>", readme, flags=re.MULTILINE)
        total += minutes
        print(f"{path.stem:24} {minutes:4} min")
    print(f"{'all':24} {total / 60:4.0f} h")
    with atomic_write(README) as temporary:
        temporary.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
