"""What a run with noise gives away: Rényi differential privacy of the subsampled Gaussian, and epsilon.

In each step every example takes part with probability q (`sampling_rate`), its gradient is at most C
long, and noise of deviation σ·C is added to the sum. σ is the `noise_multiplier`. Two data sets are
neighbours if one has one example more.
"""

import math

import numpy as np
from scipy.special import logsumexp

from llmcourse.support.inputs import number, number_row, whole

ORDERS = (*(1 + n / 10 for n in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)  # α that are tried


def renyi_divergence(sampling_rate: float, noise_multiplier: float, order: float) -> float:
    """Return the Rényi divergence of order α, in nats, that one step allows between two neighbours.

    Without the example a sum is drawn from N(0, σ²), with it from (1 - q) N(0, σ²) + q N(1, σ²), in units
    of C. The divergence is ln E[(ratio of the densities)^α] / (α - 1) under the first; the expectation is
    an integral over a line, taken here as a sum on a fine grid. Without sampling (q = 1) it is α / (2 σ²).
    Raises ValueError for a rate outside (0, 1], σ not above 0 and α not above 1.

    >>> round(renyi_divergence(1.0, 2.0, 8.0), 6), round(renyi_divergence(0.01, 2.0, 8.0), 6)
    (1.0, 0.000116)

    Source: Mironov et al. 2019, arXiv:1908.10530, sec. 3.3; that this direction is the larger one: theorem 5.
    """
    q = number(sampling_rate, "sampling_rate", 1e-12, 1, "a share above 0 and at most 1, such as 0.01")
    sigma = number(noise_multiplier, "noise_multiplier", 0.01, 1e6, "a number from 0.01 on, such as 1.0")
    alpha = number(order, "order", 1 + 1e-6, 1e6, "a number above 1, such as 8")
    step = min(sigma, sigma**2) / 4  # so fine that the sum is the integral to 1e-12
    z = np.arange(-15 * sigma, alpha + 15 * sigma, step)  # the integrand has its peaks between 0 and α
    log_density = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    with_example = math.log(q) + (2 * z - 1) / (2 * sigma**2)  # ln q·(density around 1 / density around 0)
    log_ratio = np.logaddexp(math.log1p(-q), with_example) if q < 1 else with_example
    return max(0.0, float(logsumexp(log_density + alpha * log_ratio) + math.log(step))) / (alpha - 1)


def epsilon(
    sampling_rate: float, noise_multiplier: float, steps: int, delta: float, orders=ORDERS
) -> tuple[float, float]:
    """Return (ε, α): what `steps` steps together guarantee with `delta`, and the order that shows it.

    Divergences of one order add up from step to step. Each order gives an ε that holds, so the smallest
    counts. At the first or last of the `orders`, others might show less. Without noise ε is infinite.
    Raises ValueError as `renyi_divergence` does, and for a `delta` outside (0, 1).

    >>> round(epsilon(0.01, 1.0, steps=1000, delta=1e-5)[0], 3)
    2.101

    Source: adding up: Mironov 2017, arXiv:1702.07476, prop. 1; to ε: Canonne et al. 2020, arXiv:2004.00010,
    prop. 12.
    """
    steps = whole(steps, "steps", 0)
    delta = number(delta, "delta", 1e-300, 1 - 1e-9, "a number in (0, 1), below 1 / (number of examples)")
    orders = number_row(orders, "orders", 1 + 1e-6, 1e6, "orders above 1")
    if steps == 0 or noise_multiplier == 0:
        return (math.inf if steps else 0.0), float(orders[0])
    total = np.array([steps * renyi_divergence(sampling_rate, noise_multiplier, a) for a in orders])
    bounds = total + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    best = int(bounds.argmin())
    return max(0.0, float(bounds[best])), float(orders[best])


def noise_for(
    target_epsilon: float, sampling_rate: float, steps: int, delta: float, tolerance: float = 1e-3
) -> float:
    """Return the smallest noise multiplier, to `tolerance`, whose ε is at most `target_epsilon`.

    Raises ValueError where even the multiplier 1000 gives more, and as `epsilon` does.

    >>> sigma = noise_for(2.0, 0.01, steps=1000, delta=1e-5)
    >>> epsilon(0.01, sigma, 1000, 1e-5)[0] <= 2.0
    True
    """
    target = number(target_epsilon, "target_epsilon", 1e-6, 1e6, "a number above 0, such as 8")
    low, high = 0.0, 1.0
    while epsilon(sampling_rate, high, steps, delta)[0] > target:
        low, high = high, 2 * high
        if high > 1000:
            raise ValueError(f"target_epsilon={target} needs more noise than 1000: take fewer steps")
    while high - low > tolerance:
        middle = (low + high) / 2
        if middle < 0.1 or epsilon(sampling_rate, middle, steps, delta)[0] > target:
            low = middle
        else:
            high = middle
    return high
