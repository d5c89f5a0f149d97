"""A hub in a folder: the layout in which a name and a revision are found without a network."""

import hashlib
import shutil
from pathlib import Path


def publish(cache: str | Path, name: str, folder: str | Path, *revisions: str) -> str:
    """Put the files of `folder` into a hub's cache as a commit of `name`; return the commit, 40 hexadecimal digits.

    `revisions`, such as "main" or "v1", point to it from now on. The commit is made of the files' names and
    bytes, so that equal files give the same one. Raises FileNotFoundError for a folder without files.
    """
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} holds no file: save a model there first")
    digest = hashlib.sha1(usedforsecurity=False)
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    commit = digest.hexdigest()
    root = Path(cache) / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / commit, dirs_exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    for revision in revisions:
        (root / "refs" / revision).write_text(commit, encoding="utf-8")
    return commit
