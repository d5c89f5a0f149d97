"""Run notebooks with the versions that Colab has: `make test-colab`, or `python tools/test_colab.py`.

For each list in `tools/colab/` an environment is made of what that runtime of Colab has of the
course's needs, with stand-ins for `google.colab` and for TensorFlow, which says so on stderr when
it is imported. Then the notebooks run there, each alone in an empty folder. The set-up cell of the
first one installs the course as a reader's would, from a wheel of this checkout in place of GitHub.
Nothing that Colab has may change by that; no notebook may fail, write to stderr, leave a band or
miss data; and notebook 00 must say that everything is there.

torch is the CPU build of the list's version where the package registry has it, with the list's
Python where that is found; otherwise the nearest to it, and the first line says which.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
LISTS = {path.stem: path for path in sorted((ROOT / "tools" / "colab").glob("*.txt"))}
NOTEBOOKS = ["00", "03b_data", "03e_evaluation", "04a", "05b", "05a"]
GITHUB = "git+https://github.com/llmcourse/llmcourse@"
NOT_COPIED = {"torch", "tensorflow", "pip", "setuptools"}  # installed in another way, or stood in for
BAD = {
    "OUTSIDE": "a value left its band",
    "STAND-IN": "data is missing",
    "PROBLEM": "the doctor found a problem",
    "NOT ready": "the set-up is not complete",
    "is here: False": "not everything is here",
}
STAND_INS = {
    "google/colab/__init__.py": "",
    "google/colab/drive.py": "def mount(*arguments, **options):\n    raise ValueError('mount failed')\n",
    "tensorflow/__init__.py": "import sys\nsys.stderr.write('TensorFlow was imported\\n')\n"
    "raise RuntimeError('TensorFlow was imported')\n",
    "llmcourse_colab.pth": "import google.colab\n",  # as the kernel of Colab does at its start
}


def read_list(path: Path) -> tuple[dict[str, str], str]:
    """Return the versions of a list, by normalized name, and its Python."""
    text = path.read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE))
    python = re.search(r"^# Python (\S+)$", text, flags=re.MULTILINE).group(1)
    return {normal(name): version for name, version in pins.items()}, python


def normal(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pip(python, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run pip in the environment of `python`."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def python_and_torch(listed: str, wanted: str) -> tuple[str, str]:
    """Return the Python and the torch nearest to Colab's that can be had here, of the CPU builds."""
    tested = re.search(
        r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    ).group(1)
    pythons = [found for found in (shutil.which(f"python{listed}"), sys.executable) if found]
    for python in pythons:
        for torch in (f"{wanted}+cpu", f"{tested}+cpu"):
            ask = ("install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", f"torch=={torch}")
            if pip(python, *ask, check=False).returncode == 0:
                return python, torch
    return sys.executable, tested


def installed(python: Path) -> dict[str, str]:
    """Return the packages of an environment with their versions."""
    rows = json.loads(pip(python, "list", "--format", "json").stdout)
    return {normal(row["name"]): row["version"] for row in rows}


def make_environment(folder: Path, pins: dict[str, str], base: str, torch: str) -> Path:
    """Make or clean the environment in `folder`, as Colab is before a reader's first cell."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
    pinned = [f"{name}=={version}" for name, version in pins.items() if name not in NOT_COPIED]
    pip(python, "install", "--quiet", "--no-deps", f"pip=={pins['pip']}")
    pip(python, "install", "--quiet", "--no-deps", *pinned, f"torch=={torch}", "setuptools>=77.0.3")
    if extra := sorted(installed(python).keys() - pins.keys()):
        pip(python, "uninstall", "--quiet", "--yes", *extra)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for name, content in STAND_INS.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    kernel = [str(python), "-m", "ipykernel", "install", "--prefix", str(folder), "--name", "colab"]
    subprocess.run(kernel, check=True, capture_output=True)
    return python


def run(path: Path, folder: Path, wheel: Path) -> list[str]:
    """Run one notebook in `folder`, and return what went wrong."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.id == "set-up":
            cell.source = re.sub(re.escape(GITHUB) + r"[^\"]*", wheel.as_uri(), cell.source)
    notebook.metadata.kernelspec.name = "colab"
    folder.mkdir(parents=True)
    wrong = []
    try:
        client = NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="colab",
            resources={"metadata": {"path": str(folder)}},
            coalesce_streams=True,
        )
        client.execute()
    except CellExecutionError as error:
        wrong.append(f"failed: {error.ename}: {error.evalue}")
    nbformat.write(notebook, folder / path.name)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "")
            if output.get("name") == "stderr":
                wrong.append(f"{cell.id}: stderr: {text.strip()[:500]}")
            wrong += [
                f"{cell.id}: {meaning}: {text.strip()[:500]}" for sign, meaning in BAD.items() if sign in text
            ]
    return wrong


def try_list(name: str, folder: Path, prefixes: list[str], wheel: Path) -> bool:
    """Run the notebooks with the versions of one list, print what came out, and return whether all is well."""
    pins, listed = read_list(LISTS[name])
    base, torch = python_and_torch(listed, pins["torch"])
    print(
        f"== Colab {name}: Python {listed}, torch {pins['torch']}; here {base} and torch {torch}", flush=True
    )
    python = make_environment(folder / name / "env", pins, base, torch)
    before = installed(python)
    os.environ["JUPYTER_PATH"] = str(folder / name / "env" / "share" / "jupyter")
    os.environ["LLMCOURSE_CACHE"] = str(folder / name / "cache")
    os.environ["LLMCOURSE_PROGRESS"] = str(folder / name / "progress.json")
    well = True
    shutil.rmtree(folder / name / "runs", ignore_errors=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if path.name.startswith(tuple(prefixes)):
            began = time.perf_counter()
            wrong = run(path, folder / name / "runs" / path.stem, wheel)
            seconds = time.perf_counter() - began
            print(f"{path.stem:24} {seconds:5.0f} s  {'; '.join(wrong) or 'well'}", flush=True)
            well = well and not wrong
    after = installed(python)
    changed = {n: (v, after.get(n)) for n, v in before.items() if after.get(n) != v}
    print("added:", ", ".join(f"{n} {v}" for n, v in sorted(after.items()) if n not in before))
    print("changed of what Colab has:", changed or "nothing", flush=True)
    return well and not changed


def main(lists: list[str], folder: Path, prefixes: list[str]) -> None:
    """Test each of `lists`; exit with 1 when something went wrong."""
    for name in ("PYTHONPATH", "MPLBACKEND", "HF_HUB_OFFLINE", "PIP_NO_INDEX"):
        os.environ.pop(name, None)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a remark of the debugger, not of a cell
    shutil.rmtree(folder / "wheel", ignore_errors=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    results = [try_list(name, folder, prefixes, wheel) for name in lists]  # each, whatever the others do
    if not all(results):
        sys.exit("not all is well: see above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prefixes", nargs="*", default=NOTEBOOKS, help="such as 04a")
    parser.add_argument("--lists", nargs="+", choices=list(LISTS), default=list(LISTS))
    default = Path(tempfile.gettempdir()) / "llmcourse-colab"
    parser.add_argument("--folder", type=Path, default=default, help="for environments and outputs")
    main(**vars(parser.parse_args()))
