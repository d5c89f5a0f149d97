"""Reference bands: the width against theory and simulation, the shipped runs, and every bad input."""

import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from llmcourse.data.manifest import course_data
from llmcourse.monitor import planted_bugs, small_run
from llmcourse.monitor import reference_bands as curves
from llmcourse.monitor.reference_bands import Point, compare_run, make_bands, reference_bands
from llmcourse.teach.plots import curve_figure
from llmcourse.training import Step

FOLDER = course_data() / "reference_runs"
POINTS = curves.block_points(40, block=10, eval_every=20)


def healthy_values(rng, runs: int, points: int = len(POINTS)) -> np.ndarray:
    """Curves whose neighbours are alike and whose tails are heavier than normal."""
    walk = rng.standard_normal((runs, points)).cumsum(1) / 3
    return np.exp(0.02 * (walk + rng.standard_t(5, (runs, points))))


def steps_of(loss=2.0, grad_norm=1.0, validation_loss=2.0, n=40, eval_every=20) -> list[Step]:
    """A run whose curves are flat."""
    seen = dict.fromkeys(range(eval_every, n + 1, eval_every), validation_loss)
    return [Step(i, loss, 1e-3, grad_norm, 10 * i, 0.1 * i, seen.get(i)) for i in range(1, n + 1)]


@pytest.fixture(scope="module")
def bands():
    """A band around loss 2, gradient norm 1 and validation loss 2, some 6 % wide."""
    runs = healthy_values(np.random.default_rng(1), 120)
    return make_bands("flat", POINTS, runs * [1 if p.curve == "grad_norm" else 2 for p in POINTS])


# ---- the statistics -------------------------------------------------------------------------


@pytest.mark.parametrize("false_alarms", [0.02, 0.1])
def test_one_point_of_normal_runs_gives_the_normal_quantile(false_alarms):
    values = np.random.default_rng(0).standard_normal((3000, 1))
    expected = stats.norm.ppf(1 - false_alarms / 2)
    assert curves.tolerance_factor(values, false_alarms) == pytest.approx(expected, rel=0.06)


def test_independent_points_give_the_bonferroni_like_quantile():
    values = np.random.default_rng(0).standard_normal((600, 10))
    expected = stats.norm.ppf(1 - (1 - 0.95**0.1) / 2)  # all ten inside with probability 0.95
    assert curves.tolerance_factor(values, 0.05) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("runs", [60, 120])
def test_new_healthy_runs_leave_the_band_as_often_as_promised(runs):
    rng = np.random.default_rng(runs)
    rates = []
    for _ in range(40):
        band = make_bands("x", POINTS, healthy_values(rng, runs), false_alarms=0.06)
        new = healthy_values(rng, 200)
        rates.append(((new < band.low) | (new > band.high)).any(1).mean())
    assert 0.02 < np.mean(rates) <= 0.065  # curves are not independent: the union bound is not reached


def test_the_rank_allows_no_rarer_alarm_than_the_number_of_runs():
    values = np.random.default_rng(0).standard_normal((19, 3))
    far = [np.abs(curves.distances(values[i], np.delete(values, i, axis=0))).max() for i in range(19)]
    assert curves.tolerance_factor(values, 0.05) == max(far)
    assert curves.tolerance_factor(values, 0.5) == sorted(far)[9]
    with pytest.raises(ValueError, match=r"18 healthy runs are too few .* give 19"):
        curves.tolerance_factor(values[:18], 0.05)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_band_is_not_made_from_a_run_that_diverged(bad):
    """A band of nan would put every other run outside, in a confident sentence."""
    points = curves.block_points(4, 2, 4)
    runs = np.random.default_rng(0).uniform(1, 2, (60, len(points)))
    curves.make_bands("x", points, runs)
    runs[7, 2] = bad
    with pytest.raises(ValueError, match=f"run 7 is {bad} at Point"):
        curves.make_bands("x", points, runs)


def test_runs_that_do_not_differ_or_do_not_match_make_no_band():
    points = curves.block_points(4, 2, 4)
    with pytest.raises(ValueError, match="runs that differ"):
        curves.make_bands("x", points, np.ones((60, len(points))))
    with pytest.raises(ValueError, match="give one column for each point"):
        curves.make_bands("x", points, np.ones((60, 3)))
    with pytest.raises(ValueError, match="too few"):
        curves.tolerance_factor(np.array([[1.0], [2.0]]), 0.5)


def test_a_point_beyond_the_run_has_no_value():
    with pytest.raises(ValueError, match="the run has 4 steps and a point ends at step 8"):
        curves.point_values(steps_of(n=4), [Point("loss", 1, 8)])


def test_a_file_of_runs_may_come_from_a_spreadsheet_and_must_not_be_empty(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes(b"\xef\xbb\xbfloss 1-2,seed\r\n1.5,7\r\n,8\r\n")
    points, runs, rows = curves.read_runs(path)
    assert (points, rows) == ([Point("loss", 1, 2)], [{"seed": "7"}, {"seed": "8"}])
    assert runs[0, 0] == 1.5
    assert math.isnan(runs[1, 0])
    path.write_text("loss 1-2,seed\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no run"):
        curves.read_runs(path)


def test_distances_are_those_of_a_prediction_interval():
    rng = np.random.default_rng(0)
    healthy, new = rng.standard_normal((5, 4000)), rng.standard_normal(4000)
    limit = stats.t.ppf(0.975, df=4)  # a new draw against 5: Student's t with 4 degrees of freedom
    assert (np.abs(curves.distances(new, healthy)) > limit).mean() == pytest.approx(0.05, abs=0.012)


def test_block_points_cover_each_step_once():
    points = curves.block_points(40, block=8, eval_every=10)
    for curve in ("loss", "grad_norm"):
        steps = [i for p in points if p.curve == curve for i in range(p.first, p.last + 1)]
        assert steps == list(range(1, 41))
    assert [p.last for p in points if p.curve == "validation_loss"] == [10, 20, 30, 40]
    with pytest.raises(ValueError, match="block=7"):
        curves.block_points(40, block=7, eval_every=10)


def test_a_point_is_the_geometric_mean_of_its_block():
    steps = [replace(s, loss=loss) for s, loss in zip(steps_of(n=4), (1.0, 2.0, 4.0, 8.0), strict=True)]
    points = [Point("loss", 1, 2), Point("loss", 2, 4)]
    assert curves.point_values(steps, points) == pytest.approx([stats.gmean([1, 2]), stats.gmean([2, 4, 8])])


# ---- what it says ---------------------------------------------------------------------------


def test_a_normal_run_is_inside(bands):
    comparison = compare_run(steps_of(), bands)
    assert comparison.inside
    assert comparison.outside_since is None
    assert not comparison.outside.any()
    assert comparison.verdict == "inside the band of 120 healthy runs at all 10 points"


def test_a_run_that_goes_wrong_is_outside_from_that_block_on(bands):
    steps = [replace(s, loss=2.9) if s.step > 20 else s for s in steps_of()]
    comparison = compare_run(steps, bands)
    assert not comparison.inside
    assert comparison.outside_since == 21
    assert re.fullmatch(
        r"outside since step 21: training loss 2.9, band 1\.[789]\d?-2\.[12]\d?; outside at 20% of the points",
        comparison.verdict,
    )
    assert np.flatnonzero(comparison.outside).tolist() == [2, 3]


def test_too_good_is_outside_too_and_the_farthest_curve_is_named(bands):
    comparison = compare_run(steps_of(loss=1.5, grad_norm=0.01), bands)
    assert comparison.outside_since == 1
    assert "gradient norm 0.01" in comparison.verdict


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_values_that_are_no_numbers_are_outside(bands, bad):
    for curve in ("loss", "grad_norm", "validation_loss"):
        comparison = compare_run(steps_of(**{curve: bad}), bands)
        assert comparison.outside_since == (20 if curve == "validation_loss" else 1)
        assert curves.NAMES[curve] in comparison.verdict


def test_a_run_that_broke_off_is_compared_as_far_as_it_went(bands):
    comparison = compare_run(steps_of(n=25), bands)
    assert comparison.inside
    assert comparison.verdict.endswith("at all 5 points, as far as step 20 of 40")
    assert np.isfinite(comparison.values).sum() == 5


def test_more_validation_losses_than_the_reference_has_are_fine(bands):
    assert compare_run(steps_of(eval_every=5), bands).inside


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "the run has 0 steps and the reference 'flat' 40"),
        (steps_of(n=9), "the run has 9 steps .* at least one block"),
        (steps_of(n=60), "the run has 60 steps and the reference 'flat' 40"),
        (steps_of()[10:], "numbered 11 to 40, and 30 of them"),
        (steps_of()[::2], "numbered 1 to 39, and 20 of them"),
        (steps_of(eval_every=15), "no validation loss at step 20.*eval_every that divides 20"),
    ],
)
def test_a_run_that_cannot_be_compared_gets_an_error_with_a_remedy(bands, steps, message):
    with pytest.raises(ValueError, match=message):
        compare_run(steps, bands)


def test_an_unknown_reference_is_told_the_names():
    with pytest.raises(FileNotFoundError, match=r"'small_runs'.*'small_run'"):
        reference_bands("small_runs")


@pytest.mark.parametrize("n", [40, 25])
def test_the_figure_shows_each_curve_its_band_and_the_points_outside(bands, n):
    steps = [replace(s, loss=2.9) if s.step > 10 else s for s in steps_of(n=n)]
    axes = curve_figure(compare_run(steps, bands))
    assert [axis.get_title() for axis in axes] == list(curves.NAMES.values())
    crosses = [line for line in axes[0].lines if line.get_marker() == "x"]
    assert len(crosses[0].get_xdata()) == (3 if n == 40 else 1)
    plt.close(axes[0].figure)


# ---- the shipped runs -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checks():
    """The stored checks: (outside (R, P), rows)."""
    band = reference_bands()
    points, values, rows = curves.read_runs(FOLDER / "checks" / "small_run.csv")
    assert points == band.points
    return (values < band.low) | (values > band.high), rows


def test_the_files_are_small_and_the_seeds_apart():
    paths = [FOLDER / "small_run.csv", FOLDER / "checks" / "small_run.csv"]
    assert all(path.stat().st_size < 120_000 for path in paths)
    reference, check = ({(row["bug"], row["seed"]) for row in curves.read_runs(path)[2]} for path in paths)
    assert not {seed for _, seed in reference} & {seed for _, seed in check}
    assert {bug for bug, _ in reference} == {""}
    assert {bug for bug, _ in check} == {"", *planted_bugs.BUGS}


@pytest.mark.parametrize(("device", "threads", "n"), [("cpu", "1", 80), ("cpu", "2", 80), ("cuda", "1", 60)])
def test_held_out_healthy_runs_are_inside_on_any_device_and_number_of_threads(checks, device, threads, n):
    outside, rows = checks
    place = dict(bug="", device=device, threads=threads)
    here = [i for i, row in enumerate(rows) if place.items() <= row.items()]
    assert len(here) == n
    alarms = int(outside[here].any(1).sum())  # at most the promised share, up to chance
    assert stats.binom.sf(alarms - 1, len(here), curves.FALSE_ALARMS) > 0.01


@pytest.mark.parametrize("bug", planted_bugs.BUGS)
def test_held_out_runs_with_a_bug_are_outside(checks, bug):
    outside, rows = checks
    here = [i for i, row in enumerate(rows) if row["bug"] == bug]
    caught = int(outside[here].any(1).sum())
    assert len(here) == 10
    assert caught >= 9
    assert f"| {bug} | {caught} of 10 |" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_run_made_here_is_inside_and_one_with_a_bug_is_not():
    band = reference_bands(false_alarms=0.01)  # the widest: another processor is another draw
    healthy = compare_run(small_run.healthy_run(seed=7).steps, band)
    assert healthy.inside, healthy.verdict
    sick = small_run.sick_run(planted_bugs.BUGS["gradients not reset"], seed=7)
    assert compare_run(sick.steps, band).outside_since is not None
