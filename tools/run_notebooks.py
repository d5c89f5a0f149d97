"""Run notebooks from top to bottom and store their outputs: `make notebooks` (N=04a for one).

`python tools/run_notebooks.py --scale t4 04a` tries one at the larger scale, on a machine with a GPU;
the outputs go to the folder `runs/t4`, and the notebooks stay as they are.

Deterministic: two runs on one machine write the same bytes. Outputs of cells tagged `live`
(widgets, a server) are run and not stored: they mean nothing without a kernel. A notebook that
fails is left as it was.
"""

import argparse
import base64
import io
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from llmcourse.runtime import INLINE, SCALES
from llmcourse.support.files import atomic_write

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def small_picture(png: str) -> str:
    """Return a picture (base64) with at most 64 colours, a third of the size and the same to the eye."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def clean(notebook) -> None:
    """Keep what a reader needs: sources, outputs and tags; no timings, no widget state."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            if "live" in tags:
                cell.outputs = []
            for output in cell.outputs:
                output.pop("transient", None)
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small_picture(output.data["image/png"])
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})


LAPTOP = 'SCALE = "laptop"'
PEAK = """
import sys
try:
    import resource
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
except ImportError:  # Windows
    print("nan")
"""


def run(path: Path, scale: str = "laptop") -> tuple[float, float]:
    """Run one notebook, in place if at the scale "laptop"; return its seconds and its peak memory in GB.

    The memory is nan where the system does not tell.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(LAPTOP, LAPTOP.replace("laptop", scale))
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    began = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    seconds = time.perf_counter() - began
    peak = float(notebook.cells.pop().outputs[0].text) / 1e9
    clean(notebook)
    nbformat.validate(notebook)
    place = path if scale == "laptop" else NOTEBOOKS.parent / "runs" / scale / path.name
    with atomic_write(place) as temporary:
        nbformat.write(notebook, temporary)
    return seconds, peak


def environment(folder: Path) -> dict[str, str]:
    """Return what keeps a reader's own settings (threads, figures, IPython, progress) out of the outputs."""
    import matplotlib

    return {
        "OMP_NUM_THREADS": "1",  # as `make test` does, so that losses agree in every digit
        "MPLBACKEND": INLINE,
        "MATPLOTLIBRC": str(Path(matplotlib.get_data_path()) / "matplotlibrc"),
        "IPYTHONDIR": str(folder / "ipython"),
        "LLMCOURSE_PROGRESS": str(folder / "progress.json"),
    }


def main(prefixes: list[str], scale: str) -> None:
    """Run the notebooks whose names start with one of `prefixes`; all without any."""
    paths = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if p.name.startswith(tuple(prefixes) or "")]
    if not paths:
        sys.exit(f"no notebook starts with {prefixes}: see {NOTEBOOKS}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= environment(Path(folder))
        failed = []
        for path in paths:
            try:
                seconds, peak = run(path, scale)
                memory = "memory not measured on this system" if math.isnan(peak) else f"{peak:5.1f} GB"
                print(f"{path.stem:24} {seconds:6.1f} s {memory}", flush=True)
            except CellExecutionError as error:
                failed.append(path.stem)
                print(f"{path.stem:24} FAILED, left as it was\n{error}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prefixes", nargs="*", help="such as 04a; all notebooks without any")
    parser.add_argument("--scale", choices=SCALES, default="laptop")
    main(**vars(parser.parse_args()))
