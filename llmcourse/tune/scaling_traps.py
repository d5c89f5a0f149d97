"""Three ways in which published scaling fits went wrong, shown on runs whose law is known.

Stopped early: the average of small numbers is smaller still, and the optimizer takes it for done. Rounded:
an exponent of two digits is a loss of one. Bent: a parabola through losses that lie on no parabola.

Dimensions: M runs, P parameters of the law.
"""

from dataclasses import asdict

import numpy as np
from scipy.optimize import minimize

from llmcourse.support.inputs import number, whole
from llmcourse.tune.scaling import ScalingLaw, misfit, parabola_minimum

# as in the source of arXiv:2203.15556; printed there as 1.69, 406.4, 0.34, 410.7 and 0.28
HOFFMANN = ScalingLaw(E=1.6934, A=406.4, a=0.3392, B=410.7, b=0.2849)
BESIROGLU = ScalingLaw(E=1.8172, A=482.01, a=0.3478, B=2085.43, b=0.3658)  # arXiv:2404.10102, the new fit


def planted_runs(law: ScalingLaw, n_runs: int = 240, noise: float = 0.0, seed: int = 0):
    """Return (sizes, tokens, losses), (M,) each, exactly on `law` or off it by a share of `noise`.

    Sizes are between 50 million and 16 billion, tokens between 1 and 100 billion, as in Hoffmann et al.

    >>> sizes, tokens, losses = planted_runs(BESIROGLU)
    >>> len(losses), bool(np.allclose(losses, BESIROGLU(sizes, tokens)))
    (240, True)
    """
    rng, n_runs = np.random.default_rng(seed), whole(n_runs, "n_runs")
    sizes = np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), n_runs))
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(1e11), n_runs))
    return sizes, tokens, law(sizes, tokens) * np.exp(rng.normal(0.0, noise, n_runs))


def fit_with_scale(sizes, tokens, losses, scale: float, **options) -> tuple[ScalingLaw, str]:
    """Return the best law that L-BFGS finds for `scale` times the sum of Huber losses, and why it stopped.

    The best law is that of any scale. But scipy stops where the objective changes by less than `ftol`
    and its slope is below `gtol`, and measures the former as a share only of an objective above 1.
    With the unit of `misfit`, delta² = 1e-6, a scale of 1e-6 is the paper's sum, 1e-6 / M its mean.
    `options` are those of scipy's L-BFGS-B: ftol=2.2e-9 and gtol=1e-5, if you give none.
    """
    n, d, y = np.log(sizes), np.log(tokens), np.log(losses)

    def objective(p):
        value, gradient = misfit(p, n, d, y, delta=1e-3)
        return scale * value, scale * gradient

    starts = [(e, A, a, A, a) for e in (-1, 0, 1) for A in (0, 10, 20) for a in (0, 0.5, 1)]
    fits = [minimize(objective, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    e, A, a, B, b = map(float, best.x)
    return ScalingLaw(np.exp(e).item(), np.exp(A).item(), a, np.exp(B).item(), b), str(best.message)


def rounded(law: ScalingLaw, digits: int = 2) -> ScalingLaw:
    """Return the law with its E and its exponents rounded, as papers print them.

    >>> rounded(HOFFMANN)
    ScalingLaw(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28)
    """
    values = {name: round(v, digits) if name in "Eab" else v for name, v in asdict(law).items()}
    return ScalingLaw(**values)


def parabola_bias(
    law: ScalingLaw, compute: float, reach: float, centre: float = 1.0, n_sizes: int = 7
) -> float:
    """Return the size that a parabola calls best at `compute` = 6 N D, over the best size: 1 is no bias.

    The sizes lie evenly in log N between 1 / `reach` and `reach` times `centre` times the best size.

    >>> even = ScalingLaw(E=1.0, A=400.0, a=0.35, B=400.0, b=0.35)
    >>> round(parabola_bias(even, 1e21, reach=4), 6), parabola_bias(even, 1e21, reach=4, centre=2) > 1.005
    (1.0, True)

    Source: Open Athena 2026, arXiv:2603.22339.
    """
    reach = number(reach, "reach", 1 + 1e-9, wanted="a factor above 1, such as 4")
    best = law.best_size(compute)
    sizes = best * centre * np.geomspace(1 / reach, reach, whole(n_sizes, "n_sizes", least=3))
    return parabola_minimum(sizes, law(sizes, compute / (6 * sizes))) / best
