"""The folder that a run writes: whose it is, whether it is finished, and how a model is put into it whole.

`run.json` says what the run is made of, and is written first. `work/` holds the checkpoint, and goes at the
end. The card, README.md, is moved in last: a folder with a card is finished, one without is gone on with.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from llmcourse.data.cards import digest_agrees
from llmcourse.support.files import atomic_write

CARD = "README.md"


class FolderError(ValueError):
    """The folder cannot be used for this run: what is in the way, and the remedy."""


class RunFolder:
    """`path` is the folder, `work` the one in it for what a run needs until it ends."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.work = self.path / "work"

    def begin(self, identity: Mapping, megabytes: float = 0.0) -> str:
        """Claim the folder for the run that `identity` describes; return "new", "resumed" or "finished".

        Raises FolderError for a file, a folder with other things in it, another run's, and too little
        space for `megabytes`; OSError where nothing can be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"--out {self.path} is a file: give a folder, which is made if it is not there")
        record = self.path / "run.json"
        if not record.exists():
            if self.path.exists() and (
                there := sorted(file.name for file in self.path.iterdir() if not _is_left(file))
            ):
                raise FolderError(
                    f"--out {self.path} holds other things ({', '.join(there[:3])}): give a new or an empty folder"
                )
            state = "new"
        else:
            self._compare(record, identity)
            state = "finished" if self._is_finished() else "resumed"
        self._clean()
        if state == "finished":
            shutil.rmtree(self.work, ignore_errors=True)
            return state
        self._check_space(megabytes)
        if state == "new":  # first of all: a folder without it is somebody else's
            with atomic_write(record) as temporary:
                temporary.write_text(json.dumps(identity, indent=1, ensure_ascii=False), encoding="utf-8")
        self.work.mkdir(exist_ok=True)
        return state

    def saved_identity(self) -> dict | None:
        """Return what the run in this folder is made of, None if there is none. FolderError if unreadable."""
        record = self.path / "run.json"
        try:
            found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FolderError(
                f"{record} is no record of a run: remove the folder, or give another --out"
            ) from error
        if found is not None and not isinstance(found, dict):
            raise FolderError(f"{record} is no record of a run: remove the folder, or give another --out")
        return found

    def _compare(self, record: Path, identity: Mapping) -> None:
        saved = self.saved_identity()
        other = [name for name in {**saved, **identity} if saved.get(name) != identity.get(name)]
        if other:
            words = "; ".join(
                f"{n} is {_short(saved.get(n))} there and {_short(identity.get(n))} here" for n in other
            )
            raise FolderError(
                f"--out {self.path} belongs to another run: {words}. Give another folder, or remove this one"
            )

    def _is_finished(self) -> bool:
        try:
            return digest_agrees(self.path)
        except (OSError, ValueError):  # no card yet, or no weights
            return False

    def _clean(self) -> None:
        """Remove what a killed process was writing: temporary files of `atomic_write`, and a half export."""
        for folder in (self.path, self.work):
            for file in folder.glob(".*.part*"):
                file.unlink(missing_ok=True)
        shutil.rmtree(self.work / "export", ignore_errors=True)

    def _check_space(self, megabytes: float) -> None:
        place = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free / 1e6
        if free < megabytes:
            raise FolderError(
                f"--out {self.path}: {free:,.0f} MB are free there and {megabytes:,.0f} MB are needed: free some "
                "space, or give a folder on another disk"
            )

    def export_folder(self) -> Path:
        """Return an empty folder on the same disk, for everything that belongs to the finished model."""
        export = self.work / "export"
        shutil.rmtree(export, ignore_errors=True)
        export.mkdir(parents=True)
        return export

    def finish(self) -> None:
        """Move what was exported into the folder, each file whole, the card last; then remove `work`."""
        files = sorted((self.work / "export").iterdir(), key=lambda file: file.name == CARD)
        for file in files:
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())  # so that the card is not on the disk before the weights are
            file.replace(self.path / file.name)
        shutil.rmtree(self.work, ignore_errors=True)


def _is_left(file: Path) -> bool:
    return file.name.startswith(".") and ".part" in file.name


def _short(value) -> str:
    return repr(value if not isinstance(value, str) or len(value) < 40 else value[:12] + "...")
