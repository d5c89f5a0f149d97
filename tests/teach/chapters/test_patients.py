"""The patients: each illness once, charts and tables of them all."""

import torch

from llmcourse.monitor import planted_bugs, small_run
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import (
    HEALTHY,
    ROUNDS,
    charts,
    lab_table,
    samples,
    smooth,
)


def test_each_illness_is_one_patient():
    names = [name for patients in ROUNDS.values() for name in patients.values()]
    assert sorted(names) == sorted([*planted_bugs.BUGS, HEALTHY])
    letters = [letter for patients in ROUNDS.values() for letter in patients]
    assert "".join(letters) == "ABCDEFGHIJKLMNOP"


def test_charts_tables_and_folds_show_every_patient():
    runs = {"A": small_run.healthy_run(1, steps=10), "B": small_run.healthy_run(2, steps=10)}
    healthy = [small_run.healthy_run(seed, steps=10) for seed in (3, 4)]
    figure = charts(runs, healthy)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["A", "B"]
    assert max(figure.get_size_inches()) * 100 <= 700
    head, *rows = lab_table(runs, healthy[0]).splitlines()
    assert head.split() == ["healthy", "A", "B"]
    assert len(rows) == 17
    assert len({len(row) for row in rows}) == 1
    assert samples(runs).count("\n") == 1


def test_smooth_is_the_mean_of_the_last_values():
    values = torch.rand(2, 9).double().numpy()
    assert abs(smooth(values)[:, 7] - values[:, 3:8].mean(1)).max() < 1e-12
    assert (smooth(values)[:, 0] == values[:, 0]).all()
