"""Which exercises are solved: one small local file, no account, no network."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from llmcourse.support.files import atomic_write
from llmcourse.support.keep import kept

STALE = 3.0  # seconds; a notebook that records needs a few milliseconds


def progress_file() -> Path:
    """Return where progress is kept: LLMCOURSE_PROGRESS (a file, or a folder), or ~/.llmcourse/progress.json.

    Raises OSError where neither is known.
    """
    try:
        path = Path(os.environ.get("LLMCOURSE_PROGRESS") or "~/.llmcourse/progress.json").expanduser()
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        raise OSError(f"this user has no home folder ({error})") from error
    return path / "progress.json" if path.is_dir() else path


def progress_files() -> list[Path]:
    """Return this machine's file, and the one in the folder of `set_up(keep=...)`, as far as they are known."""
    files = []
    with contextlib.suppress(OSError):
        files.append(progress_file())
    if (shared := kept("progress.json")) is not None:
        files.append(shared)
    return files


def read_progress() -> dict[str, str]:
    """Return solved exercises with the date of the first correct answer; a damaged file counts as empty."""
    solved: dict[str, str] = {}
    for path in progress_files():
        with contextlib.suppress(OSError, ValueError):
            solved = {**_read(path), **solved}
    return solved


def record(name: str) -> None:
    """Remember that the exercise `name` is solved. A read-only home loses this and nothing else."""
    solved = read_progress()
    if name in solved:
        return
    solved[name] = date.today().isoformat()
    for path in progress_files() or [None]:
        try:
            add_to(path or progress_file(), solved)
        except OSError as error:
            print(f"(progress was not saved: {error}; set LLMCOURSE_PROGRESS to a file you can write)")


def add_to(path: Path, solved: dict[str, str]) -> None:
    """Add to the file what it lacks of `solved`. Several notebooks may do so at once.

    A damaged file is kept beside the new one, as ".damaged", which a line says. Raises OSError where
    the file cannot be read or written.
    """
    path = Path(os.path.realpath(path))  # the file itself, where a link names it
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_name(".llmcourse-progress.lock")):
        try:
            known = _read(path)
        except ValueError as error:
            known, aside = {}, _free_name(f"{path}.damaged")
            path.rename(aside)
            print(f"(the progress so far could not be read: {error}; it is kept in {aside})")
        with atomic_write(path) as temporary:
            content = json.dumps({**known, **solved, **known}, indent=1)  # in order, the first dates stay
            temporary.write_text(content + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, str]:
    """Return what the file holds, {} if it is empty or not there; ValueError if it is damaged.

    An editor may have saved it with a byte order mark, or in UTF-16: json finds out by itself.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw) if raw.strip() else {}
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise ValueError("brackets without end") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} in place of names and dates")
    return content


def _free_name(name: str) -> Path:
    return next(p for i in itertools.count(1) if not (p := Path(name if i == 1 else f"{name}-{i}")).exists())


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold the file `lock` while one notebook reads, adds and writes; a crash may have left an old one."""
    for _ in range(1000):
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > STALE:
                    lock.unlink()
            time.sleep(0.01)
    else:
        raise OSError(f"another notebook has been recording for long; if there is none, delete {lock}")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def progress_table() -> str:
    """Return one line per chapter: solved and all exercises.

    >>> "04a" in progress_table()
    True
    """
    from llmcourse.teach.exercises import all_exercises

    solved, problems = {}, []
    try:
        solved = _read(progress_file())
    except (OSError, ValueError) as error:
        problems = [f"(the progress so far cannot be read: {error})"]
    chapters: dict[str, list[str]] = {}
    for exercise in all_exercises():
        chapters.setdefault(exercise.name.split("-")[0], []).append(exercise.name)
    lines = ["chapter  solved"]
    for chapter, names in chapters.items():
        done = sum(name in solved for name in names)
        lines.append(f"{chapter:7}  {done} of {len(names)}  {'#' * done}{'.' * (len(names) - done)}")
    return "\n".join(lines + problems)
