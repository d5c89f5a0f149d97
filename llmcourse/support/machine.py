"""What is installed here, and the line that repairs it: in Colab, in a checkout, or elsewhere.

Floor 0: no torch, and no network.
"""

import os
import sys
from pathlib import Path

from llmcourse import __version__

SOURCE = f"llmcourse[colab] @ git+https://github.com/llmcourse/llmcourse@v{__version__}"


def in_colab() -> bool:
    """Return whether this is a notebook, or a terminal, of Google Colab."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def checkout() -> Path | None:
    """Return the root of the checkout that this package is read from; None for an installed copy."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "Makefile").is_file() and (root / "notebooks").is_dir() else None


def install_line() -> str:
    """Return the line that installs on this machine whatever the notebooks need."""
    if in_colab():
        return f'%pip install -q "{SOURCE}"'
    return "make lab" if checkout() else f'{sys.executable} -m pip install "{SOURCE}"'
