"""The stored runs of chapter 8d: rows agree with one another, and the card says what they hold."""

import csv
import sys

import pytest
import torch
from notebook_tools import ROOT

from llmcourse.finetune.verifiable import ALPHABET
from llmcourse.model import GPT, ModelConfig

sys.path.insert(0, str(ROOT / "tools"))
import measure_alignment as tool

CARD = (tool.FOLDER / "README.md").read_text(encoding="utf-8")


def stored(name):
    with (tool.FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RUNS, CURVES = stored("runs.csv"), stored("curves.csv")


def key(row):
    return tuple(row[name] for name in tool.KEY)


def test_each_run_is_there_once_with_its_curve():
    assert len({key(row) for row in RUNS}) == len(RUNS)
    curves = {}
    for row in CURVES:
        curves.setdefault(key(row), []).append(row)
    assert curves.keys() == {key(row) for row in RUNS}
    for run in RUNS:
        curve = curves[key(run)]
        assert [int(row["step"]) for row in curve] == list(range(10, int(run["steps"]) + 1, 10))
        assert [curve[-1][name] for name in ("reward", "kl", "length")] == [
            run[name] for name in ("reward", "kl", "length")
        ]
        seconds = [float(row["seconds"]) for row in curve]
        assert seconds == sorted(seconds)
        assert seconds[-1] <= float(run["seconds"]) + 0.2


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(key(run)))
def test_shares_are_those_of_the_answers(run):
    assert len(run["right"]) == tool.UNSEEN
    assert float(run["greedy"]) == pytest.approx(run["right"].count("1") / tool.UNSEEN, abs=1e-4)
    for part in ("start_", ""):
        assert float(run[part + "pass8"]) >= float(run[part + "sampled"]) - 1e-6
    assert float(run["kl"]) > -1e-6


def test_starts_are_one_for_each_kind_and_seed():
    names = ("start_greedy", "start_sampled", "start_pass8")
    kinds = {name: tool.EXPERIMENTS[name][0] for name in tool.EXPERIMENTS}
    starts = {(kinds[r["experiment"]], r["seed"], *(r[name] for name in names)) for r in RUNS}
    assert len(starts) == len({start[:2] for start in starts})


def runs_of(experiment, method, lr):
    return tool.select(tool.read(RUNS), experiment=experiment, method=method, lr=lr)


def test_grpo_gains_thirty_points_and_beats_its_controls_in_five_seeds():
    """With the whole interval over seeds; and it ends above what eight tries of the start would find."""
    grpo = runs_of("reverse", "GRPO", tool.GRPO.lr)
    assert sorted(row["seed"] for row in grpo) == [0, 1, 2, 3, 4]
    found = tool.gain(grpo)
    assert found.mean - found.half > 0.30
    assert all(row["greedy"] > row["start_pass8"] for row in grpo)
    assert max(row["seconds"] for row in grpo) < 60
    for name, lr in ((tool.RANDOM.name, tool.SLOW), (tool.OWN.name, tool.OWN.lr)):
        other = runs_of("reverse", name, lr)
        assert {row["answers"] for row in other} == {row["answers"] for row in grpo}
        for column in ("greedy", "sampled"):
            found = tool.paired(grpo, other, column)
            assert found.n == 5
            assert found.mean - found.half > 0.30


def test_a_reward_that_misses_what_is_meant_is_earned_without_it():
    for row in runs_of("hacking", "letters anywhere", 5e-4):
        assert row["reward"] > 0.95
        assert row["greedy"] < 0.02
        assert row["length"] < 4
    for row in runs_of("hacking", "letters anywhere, KL 0.2", 5e-4):
        assert row["greedy"] > row["start_greedy"] - 0.03
    for row in runs_of("hacking", "exact", 5e-4):
        assert row["greedy"] > row["start_greedy"] + 0.1


def test_a_rate_too_high_collapses_and_a_lower_one_that_falls_does_not():
    for row in runs_of("collapse", "rate 2e-3, constant", 2e-3):
        assert row["greedy"] == 0
        assert row["kl"] > 10
    for row in runs_of("collapse", "rate 2e-3, constant, KL 0.2", 2e-3):
        assert row["greedy"] > 0.2
        assert row["kl"] < 2


def test_for_sums_rewards_gain_but_end_below_eight_tries_of_the_start():
    for row in runs_of("sum", "GRPO", 2e-4):
        assert row["greedy"] > row["start_greedy"] + 0.15
        assert row["greedy"] < row["start_pass8"]


def test_the_card_holds_the_tables_of_the_rows():
    for line in tool.summary(tool.read(RUNS)):
        assert line in CARD.splitlines()


def test_a_short_run_gives_the_same_rows_twice(monkeypatch):
    def start_of(kind, share, seed):
        torch.manual_seed(seed)
        return GPT(ModelConfig(len(ALPHABET), **tool.CONFIG | dict(d_model=16, n_layers=1))).eval()

    monkeypatch.setattr(tool, "start_of", start_of)
    monkeypatch.setattr(tool, "known_tasks", lambda kind: tool.string_tasks(kind, 50))
    monkeypatch.setattr(tool, "UNSEEN", 20)
    monkeypatch.setattr(tool, "WATCHED", 64)
    for method in (tool.GRPO._replace(reward="letters"), tool.RANDOM, tool.OWN, tool.GRPO._replace(kl=0.1)):
        short = method._replace(steps=10, n_tasks=4)
        (run, (row,)), (again, (same,)) = (tool.measure("reverse", short, 3) for _ in range(2))
        for one, other in ((run, again), (row, same)):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        assert (row["step"], run["answers"], len(run["right"])) == (10, 320, 20)
        assert run.keys() == set(tool.RUN)
        assert row.keys() == set(tool.CURVE)
