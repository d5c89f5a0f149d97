"""Keep what a reader makes where it outlives the machine: `set_up(keep="drive")`, `set_up(keep=FOLDER)`.

The work stays on the machine's own disk: that is fast, and does not vanish in the middle of a run.
What is new in `runs/` is copied when a file there is complete (a checkpoint), and after each cell;
progress and downloads are written to both places. A new machine gets the runs back first; of two
versions of a file the newer one wins. A kept folder that is refused, full or lost costs a sentence,
and never the run.
"""

import contextlib
import errno
import filecmp
import json
import os
import shutil
import sys
from pathlib import Path

from llmcourse.support.machine import in_colab

DRIVE = Path("/content/drive")
MARK = "llmcourse-keeps-here.txt"
NOTE = "The course llmcourse keeps progress, downloads and runs in this folder.\n"
_keeper: "Keeper | None" = None  # what set_up chose last


class Keeper:
    """Copies the folder `runs` to `folder`/runs, and back to a new machine."""

    def __init__(self, folder: Path, runs: Path):
        self.folder, self.runs, self.there = folder, runs, folder / "runs"
        self.copied: dict[str, tuple] = {}  # name -> (size, time) of what both sides have
        self.trouble = None

    def is_there(self) -> bool:
        """Return whether the kept folder can be reached: a lost mount leaves an empty folder, or an error."""
        with contextlib.suppress(OSError):
            if (self.folder / MARK).is_file():
                return True
        self.say(f"{self.folder} is gone: from now on everything stays on this machine only")
        return False

    def say(self, trouble: str | None) -> None:
        """Print a trouble once, and once more when it is over."""
        if trouble != self.trouble:
            print(
                f"(NOT kept: {trouble}. Run the set-up cell again to mend it)" if trouble else "(kept again)"
            )
        self.trouble = trouble

    def fetch(self) -> int:
        """Copy what the kept folder has newer to this machine; return how many files came."""
        count = 0
        for kept in _files(self.there):
            name = kept.relative_to(self.there).as_posix()
            own = self.runs / name
            if not own.exists() or kept.stat().st_mtime > own.stat().st_mtime + 1:
                if not (own.exists() and filecmp.cmp(kept, own, shallow=False)):
                    _copy(kept, own)
                    count += 1
                self.copied[name] = _state(own)
            elif _state(own)[0] == kept.stat().st_size and filecmp.cmp(kept, own):
                self.copied[name] = _state(own)
        return count

    def send(self) -> None:
        """Copy what is new on this machine to the kept folder.

        A file that was removed here goes there too once a new one lies in its place: a run that was
        started anew. A folder that was merely removed here stays there.
        """
        if not self.is_there():
            return
        try:
            here = {path.relative_to(self.runs).as_posix(): _state(path) for path in _files(self.runs)}
            new = [name for name, state in here.items() if self.copied.get(name) != state]
            for name in new:
                _copy(self.runs / name, self.there / name)
                self.copied[name] = here[name]
            renewed = {Path(name).parent for name in new}
            for name in [name for name in self.copied.keys() - here.keys() if Path(name).parent in renewed]:
                (self.there / name).unlink(missing_ok=True)
                del self.copied[name]
        except OSError as error:
            reason = error.strerror or str(error)
            self.say(f"{self.folder} takes no more ({reason}); everything is still in {self.runs}")
        else:
            self.say(None)


def start(keep: str | Path | None) -> None:
    """Keep progress, downloads and `runs/` in the folder `keep`, in Google Drive for "drive"; print where.

    Raises ValueError for "drive" outside Colab and for a folder that cannot be meant. Whatever else
    stands in the way (Drive was not allowed, a disk is full) is printed, and the course goes on without.
    """
    global _keeper
    folder = check(keep)
    _keeper = None
    if folder is None:
        return
    try:
        if folder.is_relative_to(DRIVE):
            mount()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(NOTE, encoding="utf-8")
        share_progress(folder)
        keeper = Keeper(folder, Path("runs").resolve())
        came = keeper.fetch()
    except Exception as error:  # Drive refuses in several ways, of which none is documented
        print(f"NOT kept: {folder} cannot be used ({error}). Runs and progress stay on this machine only")
        return
    came = f"; {came} files of earlier runs came from there" if came else ""
    print(f"kept in {folder}: progress, downloads and runs{came}")
    _keeper = keeper
    keeper.send()
    _after_each_cell()


def check(keep: str | Path | None) -> Path | None:
    """Return the folder that `keep` means; raise ValueError where it can mean none."""
    if keep is None:
        return None
    if not isinstance(keep, str | Path) or not str(keep).strip():
        raise ValueError(f"keep={keep!r}: give a folder, 'drive' in Colab, or None to keep nothing")
    if str(keep).lower() == "drive":
        if not in_colab():
            raise ValueError("keep='drive' works in Colab; on this machine name a folder: keep='~/llmcourse'")
        return DRIVE / "MyDrive" / "llmcourse"
    folder = Path(keep).expanduser().resolve()
    runs = Path("runs").resolve()
    if folder == runs or runs in folder.parents or folder / "runs" == runs:
        raise ValueError(f"keep={str(keep)!r}: runs/ lies there already; name a folder elsewhere")
    return folder


def mount() -> None:
    """Mount Google Drive, again if an earlier mount is lost."""
    from google.colab import drive

    drive.mount(str(DRIVE))
    if not (DRIVE / "MyDrive").is_dir():
        drive.mount(str(DRIVE), force_remount=True)
    if not (DRIVE / "MyDrive").is_dir():
        raise OSError(errno.ENOENT, "Drive was mounted without its folder MyDrive")


def share_progress(folder: Path) -> None:
    """Bring what is solved on this machine, and what `folder` knows, together in both files.

    The file of this machine is that of `teach.progress`. A file that cannot be read is left alone.
    """
    contents = {}
    try:
        own = Path(os.environ.get("LLMCOURSE_PROGRESS") or "~/.llmcourse/progress.json").expanduser()
        own = own / "progress.json" if own.is_dir() else own
        for path in (own, folder / "progress.json"):
            contents[path] = dict(json.loads(path.read_bytes().strip() or b"{}") if path.exists() else {})
    except (ValueError, TypeError, RuntimeError):  # damaged, something else, or a user without a home
        return
    together = {name: day for content in contents.values() for name, day in content.items()}
    for path, content in contents.items():
        if content != together:
            _replace(
                path, lambda part: part.write_text(json.dumps(together, indent=1) + "\n", encoding="utf-8")
            )


def kept(name: str) -> Path | None:
    """Return the path of `name` in the kept folder; None when nothing is kept, or the folder is gone."""
    return _keeper.folder / name if _keeper and _keeper.is_there() else None


def after_write(path: Path) -> None:
    """Copy what is new in `runs/`, if the complete file `path` lies there."""
    if _keeper and _keeper.runs in Path(path).resolve().parents:
        _keeper.send()


def _after_cell(*_) -> None:
    if _keeper:
        _keeper.send()


def _after_each_cell() -> None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and _after_cell not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _after_cell)


def _files(folder: Path) -> list[Path]:
    """Return the files below `folder`, without temporary ones."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _copy(source: Path, target: Path) -> None:
    """Copy a file, its time included."""

    def write(part: Path) -> None:
        if shutil.disk_usage(target.parent).free < source.stat().st_size:  # Drive would drop it later
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        shutil.copyfile(source, part)
        with contextlib.suppress(OSError):  # not every file system takes a time
            shutil.copystat(source, part)

    _replace(target, write)


def _replace(target: Path, write) -> None:
    """Let `write` fill a file beside `target`, then put it in its place: whole, or as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".llmcourse-{os.getpid()}.part"
    try:
        write(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
