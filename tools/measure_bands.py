"""Measure reference bands: run a notebook over seeds and thread counts, and show what `band` saw.

    python tools/measure_bands.py 03c --seeds 1234 1 2 --threads 1 2

Prints, for each banded number of the notebook, the smallest and largest value and the limits
that the notebook states now. The notebook file is not changed.
"""

import argparse
import itertools
import json
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from run_notebooks import NOTEBOOKS


def run_once(path: Path, seed: int, threads: int) -> list:
    """Return what `band` saw as [what, value, low, high] rows."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.id == "set-up":
            cell.source = cell.source.replace("seed=1234", f"seed={seed}, threads={threads}")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "bands.jsonl"
        os.environ.update(LLMCOURSE_BAND_LOG=str(log), LLMCOURSE_PROGRESS=f"{folder}/progress.json")
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Read the command line, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", help="how the file name starts, such as 03c")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1234, 1, 2])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    (path,) = NOTEBOOKS.glob(f"{arguments.notebook}*.ipynb")
    values: dict[str, list[float]] = {}
    limits = {}
    for seed, threads in itertools.product(arguments.seeds, arguments.threads):
        for what, value, low, high in run_once(path, seed, threads):
            values.setdefault(what, []).append(value)
            limits[what] = (low, high)
        print(
            f"seed {seed}, {threads} thread(s):", {w: round(v[-1], 4) for w, v in values.items()}, flush=True
        )
    for what, seen in values.items():
        low, high = limits[what]
        verdict = "inside" if low <= min(seen) and max(seen) <= high else "OUTSIDE"
        print(f"{what}: {min(seen):.4f} to {max(seen):.4f}, {verdict} {low} to {high}")


if __name__ == "__main__":
    main()
