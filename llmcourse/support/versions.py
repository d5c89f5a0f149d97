"""Installed versions against supported and tested ones, and for each difference what to do about it.

Floor 0: no torch, and no network. Supported is what `pyproject.toml` declares, as the metadata of the installed
package has it; tested is what `constraints.txt` names, which only a checkout has.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

from llmcourse.support.machine import checkout, install_line

MODULES = {"scikit-learn": "sklearn"}  # where a module is not called like its package
WRONG = ("missing", "unreadable", "too old", "too new", "excluded")  # states that need pip


class Row(NamedTuple):
    """What is known of one package; `installed` and `tested` are None where there is no version."""

    name: str
    installed: str | None
    supported: str  # such as ">=2.9"; "any" where nothing is declared
    tested: str | None
    state: str  # "tested", "other", "restart", or one of WRONG
    to_do: str  # a sentence or a command; "" for nothing


def version_rows(
    extra: str = "colab",
    needed: Sequence[str] | None = None,
    installed: Mapping[str, str] | None = None,
    tested: Mapping[str, str] | None = None,
    running: Mapping[str, str] | None = None,
) -> list[Row]:
    """Return one row for each package of llmcourse[extra], in the order of its metadata.

    Without arguments all is read from this machine. Each of the four can be given in its place: `needed` as
    lines of metadata, such as 'torch>=2.9; extra == "colab"', the others as versions by name. `running` are the
    versions that this process has imported already. Raises PackageNotFoundError where llmcourse is not installed,
    and ImportError without the package `packaging`.

    >>> rows = version_rows(needed=["torch>=2.9", "numpy<3"], installed={"torch": "2.8"}, tested={}, running={})
    >>> for row in rows:
    ...     print(row.name, row.installed, row.state, row.to_do)
    torch 2.8 too old pip install 'torch>=2.9'
    numpy None missing pip install 'numpy<3'
    """
    from packaging.requirements import Requirement

    lines = metadata.requires("llmcourse") or [] if needed is None else needed
    tested = tested_versions() if tested is None else tested
    rows = []
    for requirement in map(Requirement, lines):
        name = requirement.name
        if name == "llmcourse" or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        here = _installed(name) if installed is None else installed.get(name)
        runs = _running(name) if running is None else running.get(name)
        state, to_do = _judge(requirement, here, tested.get(name), runs)
        rows.append(Row(name, here, str(requirement.specifier) or "any", tested.get(name), state, to_do))
    return rows


def _judge(requirement, installed: str | None, tested: str | None, running: str | None) -> tuple[str, str]:
    """Return the state of one package, and what to do."""
    from packaging.version import Version

    install = f"pip install '{requirement.name}{requirement.specifier}'"
    if installed is None:
        return "missing", install
    if (version := _public(installed)) is None:
        return "unreadable", f"its version {installed!r} is no number: {install} --force-reinstall"
    if not requirement.specifier.contains(version, prereleases=True):
        limits = [s for s in requirement.specifier if s.operator != "!="]
        if all(s.contains(version, prereleases=True) for s in limits):
            return "excluded", install
        low = min(Version(s.version.removesuffix(".*")) for s in limits)
        return "too old" if version < low else "too new", install
    if running is not None and _public(running) not in (None, version):
        return "restart", f"restart the kernel: it still runs {running}"
    known = None if tested is None else _public(tested)
    if known is None or version == known:
        return "tested" if known else "other", ""
    age = "newer" if version > known else "older"
    return "other", f"{age} than tested; if numbers differ: pip install '{requirement.name}=={tested}'"


def _public(version: str):
    """Return a version without what stands after +, such as cpu; None for what is none, as a broken package says."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(Version(version).public)
    except (InvalidVersion, TypeError):
        return None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _running(name: str) -> str | None:
    """Return the version that this process has imported; None where it has not, or the module does not say."""
    module = sys.modules.get(MODULES.get(name, name.replace("-", "_")))
    version = vars(module).get("__version__") if module else None  # as it is: some modules warn when asked
    return str(version) if isinstance(version, str) else None


def tested_versions() -> dict[str, str]:
    """Return the versions of `constraints.txt` by name; nothing where the course is no checkout."""
    root = checkout()
    if root is None or not (root / "constraints.txt").is_file():
        return {}
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE))


def version_table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text, under a head.

    >>> print(version_table([Row("torch", "2.13.0", ">=2.9", None, "other", "")]))
    package  installed  supported  tested  what to do
    torch    2.13.0     >=2.9      -       nothing
    """
    head = ("package", "installed", "supported", "tested", "what to do")
    cells = [(r.name, r.installed or "-", r.supported, r.tested or "-", r.to_do or "nothing") for r in rows]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(4)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]])
        for row in [head, *cells]
    )


def package_problems(extra: str = "colab") -> list[str]:
    """Return one line for each package of llmcourse[extra] that is missing or does not fit, with the remedy.

    The extra "colab" holds the libraries that notebooks compare themselves with.
    """
    try:
        rows = version_rows(extra, tested={}, running={})
    except metadata.PackageNotFoundError:  # its folder is merely on the path, or pip was interrupted
        return [f"llmcourse is not installed whole, so its needs are unknown: {install_line()}"]
    except ImportError:
        return [f"packaging is missing: {install_line()}"]
    return [
        f"{row.name} is missing: {row.to_do}"
        if row.state == "missing"
        else f"{row.name} {row.installed} does not fit: {row.to_do}"
        for row in rows
        if row.state in WRONG
    ]
