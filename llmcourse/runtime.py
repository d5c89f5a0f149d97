"""The start of every notebook: seed, threads, device, precision, and small tools that need no model.

Floor 0: torch and the standard library only.
"""

import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

SCALES = ("laptop", "t4")
_scale = "laptop"  # what set_up chose last; see current_scale


@dataclass(frozen=True)
class Runtime:
    """What `set_up` decided: `seed`, `threads`, `scale`, `device`, and `dtype` for autocast."""

    seed: int
    threads: int
    scale: str
    device: torch.device
    dtype: torch.dtype

    def pick(self, laptop, t4):
        """Return `laptop` or `t4`, whichever the scale says: the one dial of the course."""
        return t4 if self.scale == "t4" else laptop


def set_up(seed: int = 1234, threads: int | None = None, scale: str = "laptop") -> Runtime:
    """Seed Python and torch, fix the number of threads, and choose the device.

    `scale="laptop"` (the default) computes on the CPU in float32, so that every reader sees
    the numbers of the text. `scale="t4"` needs a GPU and makes everything bigger.

    Raises ValueError for an unknown scale, for fewer than one thread, and for "t4" without a GPU.

    >>> set_up(seed=1).device
    ready: seed 1, scale laptop
    device(type='cpu')
    """
    global _scale
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown: choose one of {SCALES}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads}: at least 1 is needed; None keeps torch's choice")
    device = torch.device("cpu") if scale == "laptop" else pick_device()
    if scale == "t4" and device.type == "cpu":
        raise ValueError(
            "scale='t4' needs a GPU and none was found. In Colab: Runtime > Change runtime type "
            "> T4 GPU. Elsewhere: set SCALE = 'laptop', which is worth reading by itself"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    random.seed(seed)
    torch.manual_seed(seed)
    _scale = scale
    print(f"ready: seed {seed}, scale {scale}")
    return Runtime(seed, torch.get_num_threads(), scale, device, autocast_dtype(device))


def current_scale() -> str:
    """Return the scale of the last `set_up`: reference bands are for "laptop" only."""
    return _scale


def pick_device() -> torch.device:
    """Return the best device of this machine: CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def autocast_dtype(device: torch.device) -> torch.dtype:
    """Return the precision in which matrix products are best computed on `device`.

    bfloat16 where the GPU has it in hardware, float16 on older GPUs such as the T4 (with loss
    scaling, see `training.train`), float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return torch.float32


class Timer:
    """Measure wall-clock seconds of a `with` block.

    >>> with Timer() as timer:
    ...     _ = sum(range(1000))
    >>> timer.seconds > 0
    True
    """

    def __enter__(self):
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc):
        self.seconds = time.perf_counter() - self._start


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` only when the block succeeds.

    A crash, a full disk or an interrupt leaves the old file as it was and no half-written one.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(path) as temporary: _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp made it private; a plain open() would not
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def someone_is_watching() -> bool:
    """Return True where a person can see live output: a terminal, or a notebook front end.

    A kernel driven by a program (nbclient, nbval) says that nobody can answer a prompt; live
    things such as progress bars stay silent there, so they never reach stored outputs.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and hasattr(shell, "kernel"):
        return bool(getattr(shell.kernel, "_allow_stdin", False))
    return sys.stderr.isatty()
