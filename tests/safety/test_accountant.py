"""What a noisy run gives away: closed forms, an exact sum, and two libraries' accountants."""

import math

import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from llmcourse.safety.accountant import ORDERS, epsilon, noise_for, renyi_divergence

CASES = [  # sampling rate, noise multiplier, steps, delta
    (0.01, 1.0, 1000, 1e-5),
    (0.04, 0.8, 300, 1 / 1600),
    (0.02, 4.0, 300, 1e-6),
    (0.2, 2.0, 50, 1e-3),
    (1.0, 5.0, 20, 1e-5),
    (0.001, 0.7, 20000, 1e-7),
]


def binomial(q, sigma, order):
    """The divergence of a whole order: the power of the mixture is multiplied out (Mironov et al., sec. 3.3)."""
    terms = [
        math.log(math.comb(order, k))
        + (order - k) * math.log1p(-q)
        + k * math.log(q)
        + (k * k - k) / (2 * sigma**2)
        for k in range(order + 1)
    ]
    return logsumexp(terms) / (order - 1)


@pytest.mark.parametrize(
    ("order", "sigma"), [(2, 0.05), (3, 0.5), (8, 1.0), (40, 0.2), (64, 4.0), (512, 9.0)]
)
@pytest.mark.parametrize("q", [1e-4, 0.01, 0.3, 0.9])
def test_divergence_of_a_whole_order_is_the_binomial_sum(q, sigma, order):
    assert renyi_divergence(q, sigma, order) == pytest.approx(binomial(q, sigma, order), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("order", [1.1, 2.5, 17.0, 1024.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 7.3])
def test_without_sampling_it_is_the_divergence_of_two_gaussians(order, sigma):
    assert renyi_divergence(1.0, sigma, order) == pytest.approx(order / (2 * sigma**2), rel=1e-10)


def test_fractional_orders_lie_between_whole_ones_and_all_grow_with_the_order():
    values = [renyi_divergence(0.05, 0.9, order) for order in ORDERS]
    assert values == sorted(values)


@pytest.mark.parametrize("case", CASES)
def test_epsilon_is_that_of_opacus(case):
    accountants = pytest.importorskip("opacus.accountants")
    q, sigma, steps, delta = case
    accountant = accountants.RDPAccountant()
    accountant.history = [(sigma, q, steps)]
    assert epsilon(*case)[0] == pytest.approx(accountant.get_epsilon(delta, alphas=list(ORDERS)), rel=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_epsilon_is_that_of_dp_accounting(case):
    """Of whole orders: it leaves out others whose series does not converge, says so, and gives a larger ε."""
    pytest.importorskip("dp_accounting")
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    q, sigma, steps, delta = case
    orders = [order for order in ORDERS if order % 1 == 0]
    accountant = RdpAccountant(orders)
    accountant.compose(dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(sigma)), steps)
    assert epsilon(*case, orders=orders)[0] == pytest.approx(accountant.get_epsilon(delta), rel=1e-6)


@pytest.mark.parametrize(("sigma", "delta"), [(0.6, 1e-5), (2.0, 1e-3), (5.0, 1e-6)])
def test_it_is_above_the_exact_epsilon_of_one_gaussian_but_not_far(sigma, delta):
    """Balle & Wang 2018, arXiv:1805.06530, theorem 8: the δ that belongs to an ε, exactly."""

    def exact_delta(eps):
        a, b = 1 / (2 * sigma) - eps * sigma, -1 / (2 * sigma) - eps * sigma
        return norm.cdf(a) - math.exp(eps) * norm.cdf(b)

    low, high = 0.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if exact_delta(middle) < delta else (middle, high)
    assert high < epsilon(1.0, sigma, 1, delta)[0] < 1.2 * high + 0.1


def test_more_steps_cost_more_and_more_noise_costs_less():
    assert epsilon(0.02, 1.0, 0, 1e-5)[0] == 0
    by_steps = [epsilon(0.02, 1.0, steps, 1e-5)[0] for steps in (1, 10, 100, 1000)]
    by_noise = [epsilon(0.02, sigma, 100, 1e-5)[0] for sigma in (4.0, 2.0, 1.0, 0.5)]
    assert by_steps == sorted(by_steps)
    assert by_noise == sorted(by_noise)
    assert epsilon(0.02, 0.0, 1, 1e-5)[0] == math.inf
    assert math.isfinite(epsilon(0.02, 0.1, 1, 1e-5)[0])


@pytest.mark.parametrize("target", [0.5, 2.0, 8.0, 50.0])
def test_the_noise_for_an_epsilon_keeps_it_and_a_little_less_does_not(target):
    sigma = noise_for(target, 0.04, steps=300, delta=1e-4)
    assert epsilon(0.04, sigma, 300, 1e-4)[0] <= target < epsilon(0.04, sigma - 2e-3, 300, 1e-4)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: renyi_divergence(0.0, 1.0, 2.0), "sampling_rate is 0.0"),
        (lambda: renyi_divergence(1.5, 1.0, 2.0), "sampling_rate is 1.5"),
        (lambda: renyi_divergence(0.1, -1.0, 2.0), "noise_multiplier is -1.0"),
        (lambda: renyi_divergence(0.1, 1.0, 1.0), "order is 1.0"),
        (lambda: epsilon(0.1, 1.0, 10, 0.0), "delta is 0.0"),
        (lambda: epsilon(0.1, 1.0, 1.5, 1e-5), "steps=1.5"),
        (lambda: noise_for(0.0, 0.1, 10, 1e-5), "target_epsilon is 0.0"),
        (lambda: noise_for(1e-6, 1.0, 10**9, 1e-5), "take fewer steps"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
