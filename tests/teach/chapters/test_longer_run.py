"""The stored longer runs of chapter 3c: are they the notebook's own run, with more steps?"""

import math
import re
import sys

import pytest
import torch
from notebook_tools import ROOT, read

from llmcourse.schedules import warmup_linear
from llmcourse.teach.chapters.ch03c_pretraining.figures import longer_runs, loss_curves

sys.path.insert(0, str(ROOT / "tools"))
import measure_longer_run as tool


def test_the_recipe_is_that_of_the_notebook(monkeypatch, tmp_path, capsys):
    """Two steps of the notebook's cells give the losses that the tool measures in two steps."""
    cells = {cell.id: cell.source for cell in read(ROOT / "notebooks" / "03c_pretraining.ipynb").cells}
    monkeypatch.chdir(tmp_path)
    space = dict(torch=torch, steps=2, schedule=warmup_linear(2))
    needed = ("set-up", "data", "model", "train-is-the-loop", "training-parts", "training")
    for name in needed:
        code = (
            cells[name].replace("%pip", "pass  #").replace("steps // 5", "1").replace("steps=10", "steps=1")
        )
        exec("import math\n" + code if name == "model" else code.replace("loss.item()", "0"), space)
    printed = re.findall(r"^step +(\d+): loss (\d+\.\d+)", capsys.readouterr().out, flags=re.MULTILINE)
    monkeypatch.setattr(tool, "STEPS", 2)
    monkeypatch.setattr(tool, "EVERY", 1)
    rows = tool.measure(seed=1234)
    assert [(str(row["step"]), f"{float(row['validation_loss']):.2f}") for row in rows] == printed
    assert len(rows) == 2


def test_the_stored_runs_are_whole():
    """Also: both losses of a run agree, that of the first 20,000 tokens, which are harder, and that of all."""
    runs = longer_runs()
    assert len({run.seed for run in runs}) == len(runs) >= 3
    for run in runs:
        assert run.steps == list(range(tool.EVERY, tool.STEPS + 1, tool.EVERY))
        assert run.losses[-1] < run.losses[0]
        nats_per_token = run.bits_per_byte * math.log(2) * 209_973 / 79_294
        assert run.losses[-1] == pytest.approx(nats_per_token, abs=0.25)


def test_the_figure_names_a_kind_of_line_once():
    scalars = {"loss/train": ([1, 2], [5.0, 4.8]), "loss/validation": ([2], [4.9])}
    axis = loss_curves(scalars, longer_runs(), {"bigram": 4.6, "3-gram": 4.4})
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert len(labels) == len(set(labels)) == 5
    assert sum(line.get_color() == axis.lines[2].get_color() for line in axis.lines) == len(longer_runs())


@pytest.fixture(autouse=True)
def close():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")
