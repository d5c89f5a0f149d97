"""Write a file whole or not at all."""

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from llmcourse.support import keep as keeping

PAUSES = (0.1, 0.3, 1.0) if os.name == "nt" else ()  # seconds before another try to replace a file
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, size of a file


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` only when the block succeeds.

    A crash, a full disk or an interrupt leaves the old file as it was and no half-written one. A
    link stays, and the file that it names is replaced. An existing file keeps its permissions.
    Raises OSError, before the block runs, where `path` is a folder or a device, or cannot be written;
    and where the disk is full, whatever the block raised: few libraries name the disk or a remedy.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(path) as temporary: _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(os.path.realpath(path))  # a temporary file beside a link could lie on another disk
    mode = _mode_of(path)
    # `path.name` may be as long as a name can be; np.save and savefig look at its ending, and torch.save
    # takes no name without something between two points.
    ending = path.suffix if len(os.fsencode(path.suffix)) < 16 else ""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part{ending}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.touch(0o666 if mode is None else 0o600, exist_ok=False)
    except OSError as error:
        error.filename = str(path)  # the reader knows no other
        raise
    try:
        yield temporary
        if mode is not None:
            with contextlib.suppress(OSError):  # Windows' disks under WSL may know no permissions
                temporary.chmod(mode)
        _replace(temporary, path)
    except Exception as error:
        if (full := _full_disk(temporary, path)) is not None:
            raise full from error
        raise
    finally:
        with contextlib.suppress(OSError):  # on Windows a program may still hold it
            temporary.unlink(missing_ok=True)
    keeping.after_write(path)


def _full_disk(temporary: Path, path: Path) -> OSError | None:
    """Return an error with a remedy if no more can be written: a full disk, a quota, a limit of file size."""
    try:
        with temporary.open("ab") as file:
            file.write(bytes(2**20))
    except OSError as error:
        if error.errno in NO_ROOM:
            words = f"{error.strerror}: free some space on the disk of {path.parent}, or choose another path"
            return OSError(error.errno, f"{words}; the file was left as it was", str(path))
    return None


def _mode_of(path: Path) -> int | None:
    """Return the permissions of the file that is to be replaced, None if there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, give the name of a file in it", str(path))
    if not stat.S_ISREG(status.st_mode):  # to rename over /dev/null, as root, would break the machine
        raise OSError(errno.EINVAL, "this is no plain file (a device, or a link to itself)", str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "this file is read-only, give another name", str(path))
    return stat.S_IMODE(status.st_mode)


def _replace(temporary: Path, path: Path) -> None:
    """Rename; on Windows, wait for a program that holds the file for a moment, such as a virus scanner."""
    for seconds in PAUSES:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(seconds)
    try:
        temporary.replace(path)
    except PermissionError as error:
        error.add_note(f"close the program that holds {path} open")
        raise
