"""Write README's picture, a stored figure of chapter 3c, to data/pictures/pretraining.png."""

import base64
from pathlib import Path

import nbformat

from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "data" / "pictures" / "pretraining.png"


def stored_figure() -> bytes:
    """Return the loss curve as the notebook stores it."""
    notebook = nbformat.read(ROOT / "notebooks" / "03c_pretraining.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.id == "curve"]
    (png,) = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return base64.b64decode(png)


if __name__ == "__main__":
    with atomic_write(PICTURE) as temporary:
        temporary.write_bytes(stored_figure())
