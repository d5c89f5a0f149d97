"""What is installed here, and the line that repairs it: in Colab, in a checkout, or elsewhere.

Floor 0: no torch, and no network.
"""

import os
import sys
from importlib import metadata
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


def package_problems(extra: str = "colab") -> list[str]:
    """Return one line for each package of llmcourse[extra] that is missing or too old, with the remedy.

    The extra "colab" holds the libraries that notebooks compare themselves with.
    """
    try:
        needed = metadata.requires("llmcourse") or []
    except metadata.PackageNotFoundError:  # its folder is merely on the path, or pip was interrupted
        return [f"llmcourse is not installed whole, so its needs are unknown: {install_line()}"]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [f"packaging is missing: {install_line()}"]
    problems = []
    for requirement in map(Requirement, needed):
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing: pip install '{_plain(requirement)}'")
            continue
        if not requirement.specifier.contains(found.split("+")[0], prereleases=True):
            problems.append(f"{requirement.name} {found} does not fit: pip install '{_plain(requirement)}'")
    return problems


def _plain(requirement) -> str:
    """Return a requirement without its marker, as pip takes it on the command line."""
    return f"{requirement.name}{requirement.specifier}"
