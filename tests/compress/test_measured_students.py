"""The stored measurements of students and of pruning: whole, honest, and made again where that is cheap."""

import sys

import pytest
import torch
from notebook_tools import ROOT

from llmcourse.compress.prune import sparsity

sys.path.insert(0, str(ROOT / "tools"))
import measure_students as tool

STUDENTS, PRUNING = (tool.read(tool.FOLDER / name) for name in ("students.csv", "pruning.csv"))


def rows_of(rows, *which):
    return [row for row in rows if (row["method"], row["scheme"], int(row["steps"])) == which]


def test_every_run_is_there_once_and_no_other():
    """Other temperatures and teachers may be fewer: what they say is read seed by seed."""
    wanted = [tool.one_shot_runs(), *(tool.recovery_runs(seed) for seed in (1, 2, 3))]
    assert sorted(map(tool.key_of, PRUNING)) == sorted(key for runs in wanted for key in runs)
    stored = [tool.key_of(row) for row in STUDENTS]
    assert len(stored) == len(set(stored))
    needed, others = (
        {key for make in made for seed in (1, 2, 3) for key in make(seed)}
        for made in ([tool.student_runs], [tool.temperature_runs, tool.weak_runs])
    )
    assert needed <= set(stored) <= needed | others


def test_the_differences_are_those_of_their_seeds():
    """The mean over seeds, and Student's interval as scipy has it."""
    from scipy import stats

    _, one, other = tool.PAIRS[0]
    mean, half, n = tool.difference(STUDENTS, one, other, "held_out")
    a, b = ([float(row["held_out"]) for row in rows_of(STUDENTS, *which)] for which in (one, other))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert n == 3
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-5)
    assert mean + half < 0


def test_a_pruned_model_is_measured_again():
    """Of the columns the two that are cheap: on training text, and the bytes of its file."""
    (row,) = rows_of(PRUNING, "pruned", "60%", 0)
    model, _ = tool.pruned("60%")
    assert sparsity(model) == pytest.approx(0.6, abs=1e-4)
    assert f"{tool.training_bits(model):.3f}" == f"{float(row['training']):.3f}"
    sizes = {row["scheme"]: row for row in tool.read(tool.FOLDER / "pruned_files.csv")}
    assert (row["bytes"], sizes["60%"]["plain"]) == (sizes["60%"]["sparse"], sizes["not pruned"]["plain"])


def test_the_recipe_of_a_run_is_the_stored_one(monkeypatch):
    """A few of its steps: both students see the same text, and only one of them a teacher."""
    monkeypatch.setattr(tool, "STEPS", 2)
    seen = []
    monkeypatch.setattr(tool, "train", lambda model, batches, **how: seen.append((batches, how)) or [])
    for _, make in list(tool.student_runs(1).items())[1:3] + list(tool.temperature_runs(1).items())[:1]:
        make()
    rows = [next(iter(batches))[0] for batches, _ in seen]
    assert all(torch.equal(row, rows[0]) for row in rows)
    assert [how["steps"] for _, how in seen] == [2, tool.EQUAL, 2]
    assert [how["loss"] is tool.next_token_loss for _, how in seen] == [False, True, False]


def test_equal_time_is_about_equal():
    spent = [
        sum(float(row["seconds"]) for row in rows_of(STUDENTS, *which))
        for which in (("distilled", "T=2", tool.STEPS), ("scratch", "no teacher", tool.EQUAL))
    ]
    assert 0.7 < spent[0] / spent[1] < 1.4
