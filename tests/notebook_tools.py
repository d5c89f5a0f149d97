"""What the notebook tests share."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IGNORED = "nbval-ignore-output"
NUMBER = r"-?\d+(?:\.\d+)?"
# A line that `band` printed.
BAND_LINE = re.compile(
    rf"^(?P<name>.*): (?P<value>{NUMBER}), (?P<verdict>inside|OUTSIDE) (?P<low>{NUMBER}) to (?P<high>{NUMBER})$",
    re.MULTILINE,
)


def read(path: Path):
    """Return the notebook at `path`."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    """Return the code cells that hold something."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def printed(cell) -> str:
    """Return what a cell printed to standard output."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def compared(notebook) -> list:
    """Return the cells whose printed text nbval compares."""
    return [cell for cell in code_cells(notebook) if printed(cell) and IGNORED not in tags(cell)]
