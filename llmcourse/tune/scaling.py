"""Scaling laws: what loss to expect of a model that nobody has trained, and how sure one can be.

L(N, D) = E + A / N^a + B / D^b: what no model can know, what a small one misses, what few tokens miss.

Dimensions: M measured runs, K cells (pairs of size and tokens), P parameters of the law, R resamples.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student_t

from llmcourse.support.inputs import number, number_row, whole

SHARES, EXPONENTS = (0.2, 0.5, 0.8), (0.2, 0.5, 1.0)  # where fits begin: E of the mean loss; a and b
NEAR, EXACT = {"ftol": 1e-6, "gtol": 1e-3}, {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 3000, "maxfun": 10_000}


@dataclass(frozen=True)
class ScalingLaw:
    """L(N, D) = E + A / N^a + B / D^b; with B = 0 the law of one number of tokens, E + A / N^a.

    >>> law = ScalingLaw(E=1.0, A=20.0, a=0.5, B=30.0, b=0.5)
    >>> float(law(100, 900))
    4.0
    """

    E: float
    A: float
    a: float
    B: float = 0.0
    b: float = 0.0

    def __call__(self, sizes, tokens=1.0) -> np.ndarray:
        """Return the losses of models of these sizes after so many tokens, of the broadcast shape."""
        sizes, tokens = np.asarray(sizes, dtype=float), np.asarray(tokens, dtype=float)
        return self.E + self.A * sizes**-self.a + self.B * tokens**-self.b

    def best_size(self, compute: float, factor: float = 6.0) -> float:
        """Return the size N with the lowest loss among those with factor · N · D = compute.

        Raises ValueError for a law without both exponents, whose best size is none, and for numbers that
        are not above 0.

        >>> law = ScalingLaw(E=1.0, A=20.0, a=0.5, B=20.0, b=0.5)
        >>> round(law.best_size(6 * 400.0**2), 6)
        400.0

        Source: Hoffmann et al. 2022, arXiv:2203.15556, eq. 4.
        """
        compute = number(compute, "compute", 1e-300, wanted="a number of operations above 0")
        factor = number(factor, "factor", 1e-300, wanted="a number of operations above 0, such as 6")
        if min(self.A, self.a, self.B, self.b) <= 0:
            raise ValueError(f"{self}: only a law with A, a, B and b above 0 has a best size")
        ratio = (self.a * self.A / (self.b * self.B)) ** (1 / (self.a + self.b))
        return ratio * (compute / factor) ** (self.b / (self.a + self.b))


@dataclass(frozen=True)
class Prediction:
    """The loss that `predict_loss` expects, the limits of its interval, and the law behind it."""

    loss: float
    low: float
    high: float
    law: ScalingLaw


def misfit(
    p: np.ndarray, log_n: np.ndarray, log_d: np.ndarray | None, log_losses: np.ndarray, delta: float = 1e-2
) -> tuple[float, np.ndarray]:
    """Return (sum, gradient (P,)) of the Huber losses between the logarithms of law and measurement.

    `p` is (ln E, ln A, a, ln B, b), or its first three where `log_d` is None. Distances up to `delta`,
    a share of the loss, count as squares, longer ones as lengths; the unit of the sum is delta².

    Source: Hoffmann et al. 2022, arXiv:2203.15556, eq. 3, with delta 1e-3.
    """
    terms = [np.full_like(log_n, p[0]), p[1] - p[2] * log_n]
    if log_d is not None:
        terms.append(p[3] - p[4] * log_d)
    total = np.logaddexp.reduce(terms)  # ln of the law, (M,)
    shares, error = np.exp(terms - total), total - log_losses
    clipped = np.clip(error, -delta, delta)
    value = (clipped * (error - clipped / 2)).sum() / delta**2
    slopes = clipped * shares / delta**2  # (terms, M)
    gradient = [slopes[0].sum(), slopes[1].sum(), -slopes[1] @ log_n]
    return value, np.array(gradient if log_d is None else [*gradient, slopes[2].sum(), -slopes[2] @ log_d])


def fit_law(sizes, tokens, losses, delta: float = 1e-2) -> ScalingLaw:
    """Return the law with the smallest `misfit`, found by L-BFGS from a grid of starts.

    `sizes` (M,) are numbers of parameters, `tokens` (M,) of training tokens, `losses` (M,) in any unit.
    `tokens=None` is for runs that all read as many: with one D, B / D^b cannot be told from E, so the law
    has three parameters instead of five. The result does not depend on units: they are divided out first.
    Raises ValueError for rows of unequal length, numbers that are not above 0, and too few different runs.

    >>> sizes, tokens = np.meshgrid([1e4, 1e5, 1e6], [1e6, 1e7, 1e8])
    >>> law = fit_law(sizes.ravel(), tokens.ravel(), (2 + 60 / sizes**0.5 + 300 / tokens**0.4).ravel())
    >>> round(law.E, 3), round(law.a, 3), round(law.b, 3)
    (2.0, 0.5, 0.4)

    Source: Hoffmann et al. 2022, arXiv:2203.15556, sec. 3.3. The objective is a sum, and its tolerance
    tiny: with a mean, L-BFGS stops early (Besiroglu et al. 2024, arXiv:2404.10102, app. A).
    """
    return _fitted(*_checked(sizes, tokens, losses), number(delta, "delta", 1e-12, wanted="a number above 0"))


def predict_loss(
    sizes,
    tokens,
    losses,
    size: float,
    n_tokens: float | None = None,
    *,
    runs: int = 3,
    level: float = 0.95,
    n_resamples: int = 200,
    seed: int = 0,
    delta: float = 1e-2,
) -> Prediction:
    """Return the mean loss expected of `runs` new runs of one size and `n_tokens`, and the interval it should lie in.

    Runs of one cell (size, tokens) differ by seed; their deviations are one pool. What the law misses of
    the cells' means, beyond what seeds explain, is the other. Each resample adds draws from both to the
    law, fits it anew, and is compared with a new cell, made in the same way: so the interval holds what
    seeds, the shape of the law and the fit leave open, and not that another law may hold further out.
    Each pool is widened by Student's t, for the numbers that it was estimated from: cells less P parameters,
    runs less cells. Raises ValueError as `fit_law`, and for `n_tokens` with a law of sizes alone.

    Source: the bootstrap of residuals, Davison & Hinkley 1997, sec. 6.3 and 7.2.
    """
    log_n, log_d, log_losses = _checked(sizes, tokens, losses)
    delta = number(delta, "delta", 1e-12, wanted="a number above 0")
    if log_d is None and n_tokens is not None:
        raise ValueError(
            f"n_tokens={n_tokens} with tokens=None: a law of sizes alone holds for the tokens of its runs"
        )
    runs, level = whole(runs, "runs"), number(level, "level", 1e-9, 1 - 1e-9, "a number between 0 and 1")
    size = number(size, "size", 1e-300, wanted="a number of parameters above 0")
    if log_d is not None:
        n_tokens = number(n_tokens, "n_tokens", 1e-300, wanted="a number of tokens above 0")
    log_n, log_d, means, seeds, n_seeds = _cells(log_n, log_d, log_losses)
    law = _fitted(log_n, log_d, means, delta)
    at = math.log(size), 0.0 if log_d is None else math.log(n_tokens)
    fitted = np.log(law(np.exp(log_n), 1.0 if log_d is None else np.exp(log_d)))
    expected = float(np.log(law(np.exp(at[0]), np.exp(at[1]))))
    left = len(means) - (3 if log_d is None else 5)
    missed = _unexplained(means - fitted, left, (seeds**2).mean() / n_seeds.mean())
    missed, seeds = missed * _widening(level, left), seeds * _widening(level, len(seeds) - len(means))
    rng, errors = np.random.default_rng(seed), []

    def drawn(counts):
        noise = np.array([rng.choice(seeds, n).mean() for n in counts])
        return rng.choice(missed, len(counts)) + noise

    for _ in range(whole(n_resamples, "n_resamples", least=2)):
        again = _fitted(log_n, log_d, fitted + drawn(n_seeds), delta, start=law)
        there = float(np.log(again(np.exp(at[0]), np.exp(at[1]))))
        errors.append(expected + drawn([runs])[0] - there)
    tail = (1 - level) / 2
    low, high = expected + np.quantile(errors, [tail, 1 - tail])
    return Prediction(math.exp(expected), math.exp(low), math.exp(high), law)


def parabola_minimum(sizes, losses) -> float:
    """Return the size at the lowest point of a parabola through losses over log N, at one compute.

    A law is no parabola: with a and b unequal the result is off even without noise, and by how much
    depends on where the sizes lie. Raises ValueError for fewer than three sizes, and where it has no
    lowest point.

    >>> round(parabola_minimum([10, 100, 1000], [2.0, 1.0, 2.0]))
    100

    Source: Hoffmann et al. 2022, arXiv:2203.15556, sec. 3.2.
    """
    log_n, _, log_losses = _checked(sizes, None, losses, least=3)
    curve, slope, _ = np.polyfit(log_n, np.exp(log_losses), 2)
    if curve * np.ptp(log_n) ** 2 <= 1e-9 * np.exp(log_losses).mean():  # straight, but for rounding
        raise ValueError("the losses do not rise on both sides: measure sizes on either side of the lowest")
    return math.exp(-slope / (2 * curve))


def _checked(sizes, tokens, losses, least: int | None = None):
    """Return (log N, log D or None, log losses), each (M,)."""
    rows = {"sizes": sizes, "losses": losses} | ({} if tokens is None else {"tokens": tokens})
    rows = {n: np.log(number_row(v, n, 1e-300, wanted="a number above 0")) for n, v in rows.items()}
    lengths = {name: len(row) for name, row in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{lengths}: give one number for each run in each row")
    least = least or (4 if tokens is None else 6)
    cells = set(zip(*(rows[name] for name in rows if name != "losses"), strict=True))
    if len(cells) < least:
        what = "sizes" if tokens is None else "pairs of size and tokens"
        raise ValueError(f"{len(cells)} different {what}: this fit needs at least {least}")
    for name in ("sizes", "tokens") if tokens is not None else ():
        if len(set(rows[name])) < 3:
            raise ValueError(f"{len(set(rows[name]))} different {name}: each exponent needs at least 3")
    return rows["sizes"], rows.get("tokens"), rows["losses"]


def _fitted(log_n, log_d, log_losses, delta: float, start: ScalingLaw | None = None) -> ScalingLaw:
    """Return the best law, from `start` or from the grid; sizes and tokens are centred, losses divided."""
    middle, scale = log_n.mean(), log_losses.mean()
    n, losses = log_n - middle, log_losses - scale
    at = 0.0 if log_d is None else log_d.mean()
    d = None if log_d is None else log_d - at
    if start is None:
        starts = [
            np.array([np.log(share), np.log((1 - share) / 2), a, np.log((1 - share) / 2), b])
            for share in SHARES
            for a in EXPONENTS
            for b in (EXPONENTS if d is not None else (0.0,))
        ]
    else:
        size, token = start.A * np.exp(-start.a * middle), start.B * np.exp(-start.b * at)
        terms = np.log(np.maximum([start.E, size, token], 1e-12)) - scale
        starts = [np.array([terms[0], terms[1], start.a, terms[2], start.b])]
    keep = slice(None) if d is not None else slice(3)

    def search(p, options):
        return minimize(misfit, p, (n, d, losses, delta), "L-BFGS-B", jac=True, options=options)

    best = min((search(p[keep], NEAR) for p in starts), key=lambda fit: fit.fun)
    p = search(best.x, EXACT).x if start is None else best.x
    law = [np.exp(p[0] + scale), np.exp(p[1] + scale + p[2] * middle), p[2]]
    if d is not None:
        law += [np.exp(p[3] + scale + p[4] * at), p[4]]
    return ScalingLaw(*map(float, law))


def _cells(log_n, log_d, log_losses):
    """Return (log N, log D, mean of log losses, (K,) each; deviations of runs (M,); runs in each cell (K,))."""
    keys = list(zip(log_n, log_n if log_d is None else log_d, strict=True))
    names = sorted(set(keys))
    index = np.array([names.index(key) for key in keys])
    counts = np.bincount(index)
    means = np.bincount(index, weights=log_losses) / counts
    more = np.sqrt(counts / np.maximum(counts - 1, 1))[index]  # a mean of n lies nearer to its runs
    sizes, tokens = np.array(names).T
    return sizes, None if log_d is None else tokens, means, (log_losses - means[index]) * more, counts


def _widening(level: float, left: int) -> float:
    """Return by what factor errors reach further whose deviation was estimated from few numbers."""
    return student_t.ppf((1 + level) / 2, left) / norm.ppf((1 + level) / 2) if left else 1.0


def _unexplained(residuals: np.ndarray, left: int, by_seeds: float) -> np.ndarray:
    """Return the residuals (K,), centred, with the variance that P parameters hide and without that of seeds."""
    residuals = residuals - residuals.mean()
    squares = (residuals**2).sum()
    variance = max(0.0, squares / left - by_seeds)
    return residuals * math.sqrt(variance * len(residuals) / squares) if squares > 0 else residuals
