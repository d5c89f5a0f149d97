"""Write README's tree of the package from the first sentence of each module: `python tools/readme_tree.py`."""

import ast
import re
from pathlib import Path

from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDED = {"chapters"}  # folders whose modules are not listed: one a notebook, all alike
WIDTH = 26  # of the column of names
HEAD, TAIL = "llmcourse/", "data/ "  # the lines before and after the package


def purpose(path: Path) -> str:
    """Return the first sentence of a module's docstring, up to its end or the end of its line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[^.])\.(?=\s|$)", text)[0].replace("\n", " ")


def rows(folder: Path, depth: int = 1) -> list[str]:
    """Return a line for each module of `folder`, then for each folder in it."""
    found, indent = [], "  " * depth
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__" and folder.name not in FOLDED:
            found.append(f"{indent + path.name:{WIDTH}} {purpose(path)}")
    for path in sorted(path.parent for path in folder.glob("*/__init__.py")):
        found.append(f"{indent + path.name + '/':{WIDTH}} {purpose(path / '__init__.py')}")
        if path.name not in FOLDED:
            found += rows(path, depth + 1)
    return found


def with_tree(text: str) -> str:
    """Return README's text with the package's part of its tree as the modules say."""
    start = text.index("\n" + HEAD) + 1
    end = text.index("\n" + TAIL, start) + 1
    head = f"{HEAD:{WIDTH}} the package behind them"
    return text[:start] + "\n".join([head, *rows(ROOT / "llmcourse")]) + "\n" + text[end:]


if __name__ == "__main__":
    with atomic_write(README) as temporary:
        temporary.write_text(with_tree(README.read_text(encoding="utf-8")), encoding="utf-8")
