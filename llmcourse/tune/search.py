"""Search for hyper-parameters with a budget of training steps: at random, or by successive halving.

Both are generators of `Trial`, so printing, plotting and stopping stay in the reader's `for`. You
give two functions:

- `draw(rng)` returns a configuration, from a `random.Random`;
- `train(config, state, steps)` trains for `steps` more steps, from `state` (None at first), and
  returns (score on validation data, new state). A higher score is better.

`steps` is any unit of cost: updates, epochs, seconds.
"""

import bisect
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from llmcourse.support.inputs import whole


@dataclass(frozen=True)
class Trial:
    """One look at a configuration: `score` after `steps` in all; `spent` by the search so far."""

    config: object
    steps: int
    score: float
    spent: int
    state: object = None


def random_search(draw: Callable, train: Callable, budget: int, steps: int, seed: int = 0) -> Iterator[Trial]:
    """Yield one trial of `steps` for each configuration drawn, while the budget lasts.

    Raises ValueError when the budget does not pay for one trial.

    >>> trials = random_search(lambda rng: rng.random(), lambda c, state, steps: (c, None), 10, 3)
    >>> [trial.spent for trial in trials]
    [3, 6, 9]

    Source: Bergstra & Bengio 2012, JMLR 13.
    """
    budget, steps = whole(budget, "budget", least=0), whole(steps, "steps", least=0)
    if steps < 1 or budget < steps:
        raise ValueError(
            f"a budget of {budget} does not pay for one trial of {steps} steps, at least 1: give more"
        )
    rng = random.Random(seed)
    for spent in range(steps, budget + 1, steps):
        config = draw(rng)
        score, state = train(config, None, steps)
        yield Trial(config, steps, _usable(score), spent, state)


def halving_plan(budget: int, first_steps: int = 1, factor: int = 3) -> list[tuple[int, int]]:
    """Return the rungs (configurations, steps of each so far) of the largest search that fits.

    Each rung keeps one in `factor` and gives it `factor` times the steps; the last has fewer than
    `factor` configurations. Raises ValueError when the budget does not pay for `factor` of them.

    >>> halving_plan(81)
    [(27, 1), (9, 3), (3, 9), (1, 27)]
    """
    budget = whole(budget, "budget", least=0)
    factor, first_steps = whole(factor, "factor", least=0), whole(first_steps, "first_steps", least=0)
    if factor < 2 or first_steps < 1:
        raise ValueError(f"factor={factor} must be at least 2 and first_steps={first_steps} at least 1")

    def plan(n: int) -> list[tuple[int, int]]:
        rungs = [(n, first_steps)]
        while rungs[-1][0] >= factor:
            rungs.append((rungs[-1][0] // factor, rungs[-1][1] * factor))
        return rungs

    def cost(rungs) -> int:
        before = [0, *(steps for _, steps in rungs)]
        return sum(n * (steps - earlier) for (n, steps), earlier in zip(rungs, before, strict=False))

    if cost(plan(factor)) > budget:
        raise ValueError(
            f"a budget of {budget} does not pay for {factor} configurations, which cost "
            f"{cost(plan(factor))}: give more, or start with fewer than {first_steps} steps"
        )
    numbers = range(budget // first_steps + 2)  # the cost grows with each configuration
    return plan(bisect.bisect_right(numbers, budget, key=lambda n: cost(plan(n))) - 1)


def successive_halving(
    draw: Callable, train: Callable, budget: int, first_steps: int = 1, factor: int = 3, seed: int = 0
) -> Iterator[Trial]:
    """Yield trials rung by rung: many configurations briefly, the best of them longer, and so on.

    Training continues from where a configuration stopped, so only the additional steps are paid.
    `halving_plan` says how many configurations the budget gives, and raises ValueError.

    Source: Jamieson & Talwalkar 2016, arXiv:1502.07943; Li et al. 2018, arXiv:1603.06560.
    """
    rungs = halving_plan(budget, first_steps, factor)
    rng, spent = random.Random(seed), 0
    alive = [Trial(draw(rng), 0, -math.inf, 0) for _ in range(rungs[0][0])]
    for n, steps in rungs:
        alive, kept = [], sorted(alive, key=lambda trial: trial.score, reverse=True)[:n]
        for trial in kept:
            score, state = train(trial.config, trial.state, steps - trial.steps)
            spent += steps - trial.steps
            alive.append(Trial(trial.config, steps, _usable(score), spent, state))
            yield alive[-1]


def best_trial(trials: Iterable[Trial]) -> Trial:
    """Return the trial with the highest score among those that were trained longest.

    A high score after a short training is a weaker promise. A run that diverged, with a score that
    is not finite, is never chosen. Raises ValueError when there is no trial to choose from.
    """
    trials = list(trials)
    longest = max((trial.steps for trial in trials), default=0)
    trained = [trial for trial in trials if trial.steps == longest and math.isfinite(trial.score)]
    if not trained:
        diverged = f": all that were trained for {longest} steps diverged" if trials else ""
        raise ValueError(
            f"there is no trial to choose from{diverged}; run the search first, or with other rates"
        )
    return max(trained, key=lambda trial: trial.score)


def _usable(score: float) -> float:
    score = float(score)
    return score if math.isfinite(score) else -math.inf  # a run that has diverged is the worst
