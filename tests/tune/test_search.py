"""Searches on curves whose best is known; what was spent is counted by the trainer itself."""

import math
import random
from itertools import pairwise

import pytest

from llmcourse.tune.search import Trial, best_trial, halving_plan, random_search, successive_halving


class Trainer:
    """Trains nothing: the score of configuration c after s steps is c * (1 - 1 / (1 + s))."""

    def __init__(self):
        self.paid, self.calls = 0, []

    def __call__(self, config, state, steps):
        done = (state or 0) + steps
        self.paid += steps
        self.calls.append((config, state, steps))
        return config * (1 - 1 / (1 + done)), done


def draw(rng: random.Random) -> float:
    return rng.random()


@pytest.mark.parametrize(("budget", "steps", "n"), [(10, 3, 3), (9, 3, 3), (3, 3, 1), (100, 1, 100)])
def test_random_search_spends_what_it_says_and_no_more(budget, steps, n):
    trainer = Trainer()
    trials = list(random_search(draw, trainer, budget, steps))
    assert len(trials) == n
    assert trials[-1].spent == trainer.paid <= budget
    assert all(state is None and s == steps for _, state, s in trainer.calls)
    assert [trial.config for trial in trials] == [config for config, *_ in trainer.calls]
    assert best_trial(trials).config == max(trial.config for trial in trials)


@pytest.mark.parametrize("budget", [5, 9, 21, 81, 100, 243, 1000])
@pytest.mark.parametrize("first_steps", [1, 2])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_plan_is_the_largest_that_fits(budget, first_steps, factor):
    def cost(n):
        total, steps, before = 0, first_steps, 0
        while True:
            total += n * (steps - before)
            if n < factor:
                return total
            n, before, steps = n // factor, steps, steps * factor

    if cost(factor) > budget:
        with pytest.raises(
            ValueError, match=f"a budget of {budget} does not pay for {factor} configurations"
        ):
            halving_plan(budget, first_steps, factor)
        return
    plan = halving_plan(budget, first_steps, factor)
    assert cost(plan[0][0]) <= budget < cost(plan[0][0] + 1)
    assert 1 <= plan[-1][0] < factor
    for (n, steps), (fewer, more) in pairwise(plan):
        assert (fewer, more) == (n // factor, steps * factor)


@pytest.mark.parametrize("budget", [9, 50, 81, 300])
def test_halving_spends_what_it_says_and_continues_where_it_stopped(budget):
    trainer = Trainer()
    trials = list(successive_halving(draw, trainer, budget, seed=2))
    assert trials[-1].spent == trainer.paid <= budget
    done = {}
    for config, state, steps in trainer.calls:
        assert state == done.get(config)
        done[config] = (state or 0) + steps
    for rung, (n, steps) in enumerate(halving_plan(budget)):
        at = [trial for trial in trials if trial.steps == steps]
        assert len(at) == n, rung


def test_halving_keeps_the_best_where_curves_do_not_cross():
    trainer = Trainer()
    trials = list(successive_halving(draw, trainer, 81, seed=5))
    drawn = sorted({trial.config for trial in trials}, reverse=True)
    assert best_trial(trials).config == drawn[0]
    assert {trial.config for trial in trials if trial.steps == 3} == set(drawn[:9])


def test_halving_may_lose_the_best_where_curves_cross():
    def slow_but_good(config, state, steps):
        done = (state or 0) + steps
        return (-done if config < 0.5 else done - 10), done  # good ones start 10 behind

    trials = list(successive_halving(draw, slow_but_good, 81))
    assert best_trial(trials).config < 0.5


def test_the_seed_decides_and_both_searches_are_lazy():
    first = [t.config for t in random_search(draw, Trainer(), 10, 1, seed=1)]
    assert first == [t.config for t in random_search(draw, Trainer(), 10, 1, seed=1)]
    assert first != [t.config for t in random_search(draw, Trainer(), 10, 1, seed=2)]
    for search in (random_search(draw, trainer := Trainer(), 10, 1), successive_halving(draw, trainer, 81)):
        next(search)
    assert len(trainer.calls) == 2


def test_a_run_that_diverged_is_never_the_best():
    def diverges(config, state, steps):
        return (math.nan if config > 0.2 else config), None

    trials = list(random_search(draw, diverges, 40, 1))
    assert best_trial(trials).config <= 0.2
    assert all(not math.isnan(trial.score) for trial in trials)
    rungs = list(successive_halving(draw, diverges, 81))
    assert best_trial(rungs).config <= 0.2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("order", [1, -1])
def test_a_trial_without_a_finite_score_is_never_the_best(bad, order):
    trials = [Trial("diverged", 9, bad, 9), Trial("fine", 9, -3.0, 18), Trial("short", 1, 5.0, 19)][::order]
    assert best_trial(iter(trials)).config == "fine"
    with pytest.raises(ValueError, match="all that were trained for 9 steps diverged"):
        best_trial([Trial("diverged", 9, bad, 9), Trial("short", 1, 5.0, 10)])


def test_a_plan_for_a_large_budget_is_found_at_once():
    budget = 10**12
    (n, _), *_ = halving_plan(budget)
    assert (
        0.9 < n * 2 / 3 * math.log(n, 3) / budget < 1.1
    )  # a rung: n / 3^k trials for 2 * 3^(k - 1) steps more


def test_a_high_score_after_a_short_training_does_not_win():
    trials = [Trial("short", 1, 0.9, 1), Trial("long", 9, 0.7, 10), Trial("other", 9, 0.6, 19)]
    assert best_trial(trials).config == "long"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(random_search(draw, Trainer(), 2, 3)), "a budget of 2 does not pay for one trial of 3"),
        (lambda: list(random_search(draw, Trainer(), 2, 0)), "does not pay for one trial of 0 steps"),
        (
            lambda: list(successive_halving(draw, Trainer(), 4)),
            "a budget of 4 does not pay for 3 configurations",
        ),
        (lambda: halving_plan(81, factor=1), "factor=1 must be at least 2"),
        (lambda: halving_plan(81, first_steps=0), "first_steps=0 at least 1"),
        (lambda: best_trial([]), "there is no trial to choose from"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
