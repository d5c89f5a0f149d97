"""Files out of packages of Debian and Ubuntu, got with apt and unpacked: no root, nothing installed."""

import fnmatch
import shutil
import subprocess
import tempfile
from pathlib import Path

TOOLS = ("apt-get", "dpkg-deb")
Files = dict[str, bytes]


def apt_barrier() -> str:
    """Return why no package of Debian can be asked for on this machine; "" where it can.

    Whether a mirror answers is known only when it is asked.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found: only Debian, Ubuntu and Colab have them" if missing else ""


def from_apt(spec: dict) -> Files | None:
    """Return the files of a package that match `spec["files"]`, by their paths; None where it cannot be had.

    The package is downloaded into a temporary folder and unpacked there, its scripts are not run. Where this
    machine's lists of packages do not know it, new ones are read, into that folder too.
    """
    if apt_barrier():
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = _own_lists(folder, "Acquire::Languages=none")
        if not _download(folder, spec["name"], []):
            _run(folder, ["apt-get", *own, "update"])
            if not _download(folder, spec["name"], own):
                return None
        (archive,) = folder.glob("*.deb")
        if _run(folder, ["dpkg-deb", "-x", archive.name, "unpacked"]):
            return None
        root = folder / "unpacked"
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        patterns = [spec["files"]] if isinstance(spec["files"], str) else spec["files"]
        chosen = [n for n in names if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)]
        return {n: (root / n).read_bytes() for n in chosen} or None


def _own_lists(folder: Path, *settings: str) -> list[str]:
    """Return apt's options for lists and a cache in `folder`, which get their places there."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    settings += f"Dir::State::Lists={folder / 'lists'}", f"Dir::Cache={folder / 'cache'}"
    return [part for setting in settings for part in ("-o", setting)]


def _download(folder: Path, package: str, options: list[str]) -> bool:
    _run(folder, ["apt-get", *options, "-o", "APT::Sandbox::User=root", "download", package])
    return any(folder.glob("*.deb"))


def _run(folder: Path, command: list[str]) -> int:
    return subprocess.run(command, cwd=folder, capture_output=True).returncode


def apt_descriptions() -> str | None:
    """Return the lists of what Debian's packages are, as apt has them in English; None where they cannot be had.

    The lists are read into a temporary folder (some 16 MB), those of the machine stay as they are.
    """
    if apt_barrier():
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = _own_lists(folder, "Acquire::Languages=en", "Acquire::GzipIndexes=false")
        _run(folder, ["apt-get", *own, "update"])
        lists = sorted((folder / "lists").glob("*_Translation-en"))
        return "\n".join(path.read_text(encoding="utf-8") for path in lists) or None
