"""The stored runs with canaries: what they spent is the accountant's, controls are at chance, the card says the rows."""

import csv
import math
import sys

import numpy as np
import pytest
from notebook_tools import ROOT

from llmcourse.safety.accountant import epsilon, noise_for
from llmcourse.safety.memorization import chance_exposure, exposure

sys.path.insert(0, str(ROOT / "tools"))
import measure_memorization as tool

CARD = (tool.FOLDER / "README.md").read_text(encoding="utf-8")


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RUNS, EXPOSURES = table(tool.RUNS), table(tool.EXPOSURES)


def bits(**wanted):
    rows = [row for row in EXPOSURES if all(row[name] == value for name, value in wanted.items())]
    return np.array([float(row["exposure"]) for row in rows])


def test_every_run_has_all_its_canaries_and_no_other():
    for run in (run for run in RUNS if run["run"] != "none"):
        key = {name: run[name] for name in ("run", "start", "seed")}
        mine = [row for row in EXPOSURES if all(row[name] == value for name, value in key.items())]
        assert [int(row["times"]) for row in mine] == tool.TIMES
    assert len(EXPOSURES) == len(tool.TIMES) * (len(RUNS) - 1)


def test_what_a_run_spent_is_what_the_accountant_says_and_what_was_asked():
    for run in (run for run in RUNS if float(run["noise"]) > 0):
        n, target = int(run["rows"]), float(run["run"].removeprefix("epsilon "))
        rate = tool.BATCH / n
        assert noise_for(target, rate, tool.STEPS, 1 / n) == pytest.approx(float(run["noise"]), abs=1e-3)
        found = epsilon(rate, float(run["noise"]), tool.STEPS, 1 / n)[0]
        assert found == pytest.approx(float(run["epsilon"]), rel=0.01)
        assert float(run["epsilon"]) <= target
    assert {run["epsilon"] for run in RUNS if float(run["noise"]) == 0} == {"inf", "0.000"}


def test_a_large_exposure_is_that_of_a_small_rank():
    ranks = 10_000 / 2.0 ** bits()
    small = 2 * ranks[ranks < 100]  # halves where candidates tie
    assert np.abs(small - np.round(small)).max() < 0.1
    assert bits().max() <= round(exposure(1, 10_000), 3)


def test_secrets_that_were_never_planted_are_at_chance():
    """Over all runs: the standard error of a mean of n such exposures is near 1.4 / √n."""
    controls = bits(times="0")
    assert abs(controls.mean() - chance_exposure(10_000)) < 4 * 1.44 / math.sqrt(len(controls))


def test_copies_and_epochs_expose_and_taking_copies_away_or_noise_covers():
    plain, longer = (bits(run=run, start="random", times="16").mean() for run in ("plain", "longer"))
    assert longer > plain + 2 > 9
    for run, start in (("deduplicated", "random"), ("epsilon 8", "random"), ("epsilon 8", "public")):
        assert bits(run=run, start=start, times="16").mean() < plain - 3
    assert bits(run="plain", start="random", times="1").mean() < 4


def test_the_card_shows_the_summary():
    assert [line for line in tool.summary() if line and line not in CARD.splitlines()] == []
