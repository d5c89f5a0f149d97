"""What holds for every test and every example of a docstring."""

import importlib.util
import sys

import pytest

if importlib.util.find_spec("numba") is None:  # their examples need it
    collect_ignore = [f"llmcourse/fast/{name}.py" for name in ("machine", "kernels", "compiled")]


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Close what a test or an example drew: matplotlib warns after twenty, and a warning is an error here."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
