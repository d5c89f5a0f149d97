"""The stored race of chapter 3a: are they the notebook's own runs, with other seeds?"""

import itertools
import sys

import pytest
import torch
from notebook_tools import ROOT, read

from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.chapters.ch03a_architecture import figures
from llmcourse.teach.checks import band

sys.path.insert(0, str(ROOT / "tools"))
import measure_race as tool


@pytest.fixture(scope="module")
def tokens():
    return tool.token_rows()


def test_the_recipe_is_that_of_the_notebook(monkeypatch, tmp_path, tokens):
    """Two steps of the notebook's function give the losses that the tool measures in two steps."""
    cells = {cell.id: cell.source for cell in read(ROOT / "notebooks" / "03a_architecture.ipynb").cells}
    monkeypatch.chdir(tmp_path)
    space = dict(torch=torch, GPT=GPT, ModelConfig=ModelConfig, band=band)
    for name in ("set-up", "presets", "data", "overfit", "comparison"):
        exec(cells[name].replace("%pip", "pass  #").replace("steps=100", "steps=4"), space)
    assert space["steps"] == tool.STEPS
    space["steps"] = 2
    for name, config in space["presets"].items():
        theirs = space["validation_loss"](config, 4e-3)
        assert theirs == pytest.approx(tool.measure(name, 4e-3, 1234, tokens, steps=2), abs=1e-5)


def test_a_stored_run_made_again_is_the_same(tokens):
    again = tool.measure("Llama", 4e-3, 1, tokens)
    assert again == pytest.approx(figures.stored_race()["Llama", 4e-3][0], abs=0.03)


def test_all_runs_are_stored():
    stored = figures.stored_race()
    assert list(stored) == list(itertools.product(tool.ARCHITECTURES, tool.RATES))
    assert {len(losses) for losses in stored.values()} == {len(tool.SEEDS)}


def test_the_figure_draws_every_run():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    stored = figures.stored_race()
    axis = figures.race(stored, {("GPT-2", 4e-3): 5.4}, steps=300)
    assert [len(line.get_xdata()) for line in axis.lines] == [3] * len(stored) + [1]
    assert axis.lines[-1].get_ydata()[0] == list(stored).index(("GPT-2", 4e-3))
    plt.close("all")
