"""The start of every notebook: seed, threads, device, precision, and small tools that need no model.

Floor 0: torch and the standard library only.
"""

import atexit
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from llmcourse.support import keep as keeping
from llmcourse.support.machine import install_line
from llmcourse.support.versions import package_problems

SCALES = ("laptop", "t4")
INLINE = "module://matplotlib_inline.backend_inline"  # what a notebook's kernel chooses by itself
WRITES_FILES = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # matplotlib's other silent backends
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

    def folder(self, name: str, anew: bool = False) -> Path:
        """Return the folder runs/`name`, with what an earlier run left there; `anew=True` empties it.

        Each scale has its own (runs/NAME-t4). A notebook that a program drives, with nobody
        watching, gets an empty folder, so that it trains, and so that your runs stay yours.
        """
        if not someone_is_watching():
            empty = tempfile.mkdtemp(prefix="llmcourse-")
            atexit.register(shutil.rmtree, empty, ignore_errors=True)
            return Path(empty)
        folder = Path("runs") / (name if self.scale == "laptop" else f"{name}-{self.scale}")
        if anew and folder.exists():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise OSError(
                    f"{folder} could not be emptied ({error}): TensorBoard may hold its files open; "
                    "restart the kernel and try again"
                ) from error
        return folder


def set_up(
    seed: int = 1234,
    threads: int | None = None,
    scale: str = "laptop",
    keep: str | Path | None = None,
) -> Runtime:
    """Seed Python and torch, fix the number of threads, choose the device, and say what is missing.

    `scale="laptop"` (the default) computes on the CPU in float32, so that every reader sees
    the numbers of the text. `scale="t4"` needs a GPU, and makes bigger what `Runtime.pick` chooses.
    `keep` names a folder that outlives this machine, "drive" for Google Drive in Colab: progress,
    downloads and `runs/` are kept there, and come back to the next machine (see `llmcourse.support.keep`).

    In a notebook, figures come into the page, even where the environment has an MPLBACKEND that only
    writes files, such as Agg. A script keeps its backend.

    Raises ValueError for an unknown scale, for fewer than one thread, for "t4" without a GPU, and
    for a `keep` that can mean no folder.

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
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise ValueError(
            "scale='t4' needs a GPU and none was found. In Colab: Runtime > Change runtime type "
            "> T4 GPU. Elsewhere: set SCALE = 'laptop', which is worth reading by itself"
            + ("" if hidden is None else f". CUDA_VISIBLE_DEVICES={hidden!r} may hide one")
        )
    keeping.check(keep)
    if threads is not None:
        torch.set_num_threads(threads)
    show_figures()
    random.seed(seed)
    torch.manual_seed(seed)
    _scale = scale
    leave_tensorflow_out()
    keeping.start(keep)
    problems = package_problems()
    for problem in problems:
        print(f"PROBLEM  {problem}")
    if problems:
        print(f"NOT ready. Run this, restart the session, and run this cell again: {install_line()}")
    else:
        print(f"ready: seed {seed}, scale {scale}")
    return Runtime(seed, torch.get_num_threads(), scale, device, autocast_dtype(device))


def show_figures() -> None:
    """In a notebook's kernel, take the place of a backend, chosen by MPLBACKEND, that shows nothing."""
    chosen = os.environ.get("MPLBACKEND", "").removeprefix("module://matplotlib.backends.backend_")
    if kernel() is None or chosen.lower() not in WRITES_FILES:
        return
    os.environ["MPLBACKEND"] = INLINE  # for a matplotlib that is yet to be imported
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].use(INLINE)


def current_scale() -> str:
    """Return the scale of the last `set_up`: reference bands are for "laptop" only."""
    return _scale


def leave_tensorflow_out() -> None:
    """Keep TensorBoard from importing TensorFlow, which Colab has: 7 seconds, log lines, another writer.

    This is TensorBoard's own switch: where a module of this name is found, it takes its small
    stand-in (tensorboard/compat/__init__.py). Without effect once TensorBoard has loaded TensorFlow.
    """
    name = "tensorboard.compat.notf"
    sys.modules.setdefault(name, types.ModuleType(name))


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


def kernel():
    """Return the kernel in which this code runs, None in a script and in a terminal."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def someone_is_watching() -> bool:
    """Return True where a person can see live output: a terminal, or a notebook front end.

    A kernel driven by a program (nbclient, nbval) says that nobody can answer a prompt; live
    things such as progress bars stay silent there, so they never reach stored outputs.
    """
    if (here := kernel()) is not None:
        return bool(getattr(here, "_allow_stdin", False))
    return sys.stderr.isatty()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Read `model` in evaluation mode, without dropout; then each part is again in the mode it was in.

    >>> model = nn.Dropout(0.5)
    >>> with evaluating(model):
    ...     model(torch.ones(2)).tolist()
    [1.0, 1.0]
    >>> model.training
    True
    """
    in_training = [part for part in model.modules() if part.training]
    if in_training:
        model.eval()
    try:
        yield model
    finally:
        for part in in_training:
            part.training = True


def fast_dtype() -> torch.dtype:
    """Return bfloat16 where this CPU multiplies it in hardware (AMX or AVX-512 BF16), float32 elsewhere.

    Without either, bfloat16 on a CPU is emulated and slower than float32. With the second, which AMD's
    processors have had since Zen 4, products of matrices of a few hundred rows are twice as fast.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not say
    in_hardware = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if in_hardware else torch.float32
