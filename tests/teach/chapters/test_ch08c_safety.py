"""Exercises of chapter 8c, safety: right answers pass, each usual slip gets its own sentence."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong, numbered
from scipy import stats

from llmcourse.safety import filters, memorization
from llmcourse.teach.chapters.ch08c_safety.solutions import (
    exposure,
    flag_precision,
    private_gradient,
    refusal_rates,
)

RIGHT, WRONG = {}, {}


# ---- 08c-base-rate --------------------------------------------------------------------------


def by_counting(share, recall, false_alarms):
    n = 1_000_000
    bad = n * share
    flagged_bad, flagged_good = bad * recall, (n - bad) * false_alarms
    return flagged_bad / (flagged_bad + flagged_good)


def by_bayes(share, recall, false_alarms):
    flagged = recall * share + false_alarms * (1 - share)
    return recall / flagged * share


def by_odds(share, recall, false_alarms):
    if not false_alarms:
        return 1.0
    odds = share / (1 - share) * recall / false_alarms
    return odds / (1 + odds)


def exact(share, recall, false_alarms):
    s, r, f = (Fraction(str(x)) for x in (share, recall, false_alarms))
    return s * r / (s * r + (1 - s) * f)


def by_package_s_rule(share, recall, false_alarms):
    return filters.precision_at(recall, false_alarms, prevalence=share)


def as_table(share, recall, false_alarms):
    table = np.array([[share * recall, share * (1 - recall)], [(1 - share) * false_alarms, 0]])
    return table[0, 0] / table[:, 0].sum()


RIGHT["08c-base-rate"] = [flag_precision, by_package_s_rule, by_counting, by_bayes, by_odds, exact, as_table]
WRONG["08c-base-rate"] = numbered(
    [
        (lambda s, r, f: s * r / (s * r + f), "GOOD texts only"),
        (lambda s, r, f: r / (r + f), "how rare bad texts are"),
        (lambda s, r, f: r, "that is the recall"),
        (lambda s, r, f: 1 - f, "good texts that pass"),
        (lambda s, r, f: s * r, "divide by the share that is flagged"),
        (lambda s, r, f: s * r + (1 - s) * f, "which part of them is bad"),
        (lambda s, r, f: (1 - s) * f / (s * r + (1 - s) * f), "flags that are WRONG"),
        (lambda s, r, f: s / (s + (1 - s) * f), "only `recall` of them"),
        (lambda s, r, f: s * r / (s * r + (1 - s) * (1 - f)), "those that pass"),
        (lambda s, r, f: (1 - s) * r / ((1 - s) * r + s * f), "exchanged"),
        (lambda s, r, f: 100 * flag_precision(s, r, f), "in percent"),
        (lambda s, r, f: np.float64(s * r) / ((1 - s) * f + 1e-30), "the false alarms alone"),
        (lambda s, r, f: flag_precision(0.001, r, f), "1 in 5"),
        (lambda s, r, f: flag_precision(s, r, f) if f else 0.0, "without false alarms"),
    ]
)


# ---- 08c-exposure ---------------------------------------------------------------------------


def in_python(losses, planted):
    values = losses.tolist()
    smaller, same = (sum(op(v, values[planted]) for v in values) for op in (float.__lt__, float.__eq__))
    return math.log2(len(values) / (smaller + (same + 1) / 2))


def by_scipy(losses, planted):
    return -np.log2(stats.rankdata(losses.numpy())[planted] / len(losses))


def by_searching(losses, planted):
    ordered = losses.sort().values
    ends = [torch.searchsorted(ordered, losses[planted], right=side).double() for side in (False, True)]
    return math.log2(len(losses)) - torch.log2((ends[0] + 1 + ends[1]) / 2)


def by_walking(losses, planted):
    ordered = sorted(losses.tolist())
    places = [place for place, loss in enumerate(ordered, 1) if loss == losses[planted].item()]
    return math.log(len(losses) / (sum(places) / len(places)), 2)


def by_package(losses, planted):
    return memorization.exposure(memorization.rank_of(losses.tolist(), planted), len(losses))


RIGHT["08c-exposure"] = [exposure, in_python, by_scipy, by_searching, by_walking, by_package]


def rank(losses, planted):
    return stats.rankdata(losses.numpy())[planted]


def sorted_place(losses, planted):
    return losses.sort(stable=True).indices.tolist().index(planted) + 1  # ties as they stand in the list


WRONG["08c-exposure"] = numbered(
    [
        (lambda x, i: math.log(len(x)) - math.log(rank(x, i)), "in nats"),
        (lambda x, i: math.log10(len(x) / rank(x, i)), "base 10"),
        (lambda x, i: rank(x, i), "that is the rank"),
        (lambda x, i: math.log2(rank(x, i)), "the logarithm of the rank"),
        (lambda x, i: rank(x, i) / len(x), "the share of candidates"),
        (lambda x, i: len(x) / rank(x, i), "take its logarithm"),
        (lambda x, i: -exposure(x, i), "the sign is wrong"),
        (lambda x, i: exposure(-x, i), "the SMALLEST loss"),
        (lambda x, i: torch.log2(len(x) / (x < x[i]).sum()), "begin at 0"),
        (lambda x, i: math.log2(len(x) / (rank(x, i) - 1)), "begin at 0"),
        (lambda x, i: math.log2(len(x) / (x < x[i]).sum().item()), "begin at 0"),
        (lambda x, i: math.log2(len(x) / (1 + x.argsort()[i].item())), "argsort().argsort()"),
        (lambda x, i: math.log2(len(x) / (1 + (x < x[i]).sum().item())), "you rank it first"),
        (lambda x, i: math.log2(len(x) / (x <= x[i]).sum().item()), "you rank it last"),
        (lambda x, i: math.log2(len(x) - 1) - math.log2(rank(x, i)), "not log2(N - 1)"),
        (lambda x, i: math.log2(len(x) / (i + 1)), "its place in the list"),
        (lambda x, i: (x.mean() - x[i]).item() / math.log(2), "that compares losses"),
        (lambda x, i: math.log2(len(x) / sorted_place(x, i)), "share one loss"),
        (lambda x, i: math.log2(1000 / rank(x, i)), "rank 3 of 8"),
        (lambda x, i: x, "give a number"),
    ]
)


# ---- 08c-clip -------------------------------------------------------------------------------


def one_by_one(gradients, C, sigma, noise):
    total = torch.zeros_like(noise)
    for row in gradients:
        length = row.norm()
        total += row * C / length if length > C else row
    return (total + sigma * C * noise) / len(gradients)


def with_numpy(gradients, C, sigma, noise):
    rows = gradients.numpy().astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.maximum(1, lengths / C)
    return rows.mean(0) + sigma * C / len(rows) * noise.numpy()


def by_torch_s_clipping(gradients, C, sigma, noise):
    rows = []
    for row in gradients:
        leaf = torch.nn.Parameter(torch.zeros_like(row))
        leaf.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([leaf], C)
        rows.append(leaf.grad)
    return (torch.stack(rows).sum(0) + sigma * C * noise) / len(rows)


def with_renorm(gradients, C, sigma, noise):
    return (gradients.renorm(2, 0, C).sum(0) + sigma * C * noise) / gradients.shape[0]


def by_weights(gradients, C, sigma, noise):
    """A weighted sum: nothing of the size (B, P) but the gradients themselves."""
    weights = torch.where(gradients.norm(dim=1) > C, C / gradients.norm(dim=1), torch.ones(len(gradients)))
    return (weights @ gradients + noise * C * sigma) / len(gradients)


RIGHT["08c-clip"] = [private_gradient, one_by_one, with_numpy, by_torch_s_clipping, with_renorm, by_weights]


def clip(rows, C):
    return rows * (C / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1)


def no_guard(g, C, sigma, noise):
    factor = C / g.norm(dim=1, keepdim=True)
    return (torch.where(factor < 1, factor, factor / factor) * g).sum(0).add(sigma * C * noise) / len(g)


WRONG["08c-clip"] = numbered(
    [
        (lambda g, C, s, n: (clip(g.sum(0), C) + s * C * n) / len(g), "you clip the SUM"),
        (lambda g, C, s, n: clip(g.mean(0), C) + s * C * n / len(g), "you clip the MEAN"),
        (lambda g, C, s, n: (g.clamp(-C, C).sum(0) + s * C * n) / len(g), "keeps its direction"),
        (lambda g, C, s, n: ((g / g.norm(dim=1, keepdim=True) * C).sum(0) + s * C * n) / len(g), "stretched to C"),
        (lambda g, C, s, n: (g.sum(0) + s * C * n) / len(g), "not clipped"),
        (lambda g, C, s, n: clip(g, C).mean(0), "no noise"),
        (lambda g, C, s, n: (clip(g, C).sum(0) + s * n) / len(g), "in units of C"),
        (lambda g, C, s, n: (clip(g, C).sum(0) + C * n) / len(g), "multiply it by sigma"),
        (lambda g, C, s, n: (clip(g, C).sum(0) + n) / len(g), "as it is"),
        (lambda g, C, s, n: clip(g, C).mean(0) + s * C * n, "added ONCE"),
        (lambda g, C, s, n: (clip(g, C) + s * C * n).mean(0), "added ONCE"),
        (lambda g, C, s, n: clip(g, C).sum(0) + s * C * n, "divide by B"),
        (lambda g, C, s, n: (clip(g.T, C).T.sum(0) + s * C * n) / len(g), "that of columns"),
        (lambda g, C, s, n: (clip(g.flatten(), C).view_as(g).sum(0) + s * C * n) / len(g), "the whole batch"),
        (lambda g, C, s, n: (g.renorm(1, 0, C).sum(0) + s * C * n) / len(g), "sum of magnitudes"),
        (lambda g, C, s, n: clip(g + s * C * n, C).mean(0), "clip first"),
        (lambda g, C, s, n: (clip(g, C).sum(0) + (s * C) ** 2 * n) / len(g), "not a variance"),
        (lambda g, C, s, n: (clip(g, C) + s * C * n) / len(g), "not one for each example"),
        (lambda g, C, s, n: private_gradient(g, 2.0, s, n), "C = 1.5"),
        (no_guard, "keep its length from dividing"),
    ]
)  # fmt: skip


# ---- 08c-refusals ---------------------------------------------------------------------------


def with_arrays(transcripts, refusal):
    forbidden = np.array([f for f, _ in transcripts])
    refused = np.array([a == refusal for _, a in transcripts])
    return refused[forbidden].mean(), refused[~forbidden].mean()


def in_one_walk(transcripts, refusal):
    refused, asked = {True: 0, False: 0}, {True: 0, False: 0}
    for forbidden, answer in transcripts:
        asked[forbidden] += 1
        refused[forbidden] += answer.strip() == refusal
    return refused[True] / asked[True], refused[False] / asked[False]


def with_torch(transcripts, refusal):
    forbidden, refused = torch.tensor([[f, a == refusal] for f, a in transcripts]).double().T
    return torch.stack([(forbidden * refused).sum() / forbidden.sum(),
                        ((1 - forbidden) * refused).sum() / (1 - forbidden).sum()])  # fmt: skip


def by_filter(transcripts, refusal):
    for wanted in (True, False):
        kind = list(filter(lambda pair: pair[0] is wanted, transcripts))
        yield Fraction(len([a for _, a in kind if a == refusal]), len(kind))


RIGHT["08c-refusals"] = [refusal_rates, with_arrays, in_one_walk, with_torch, by_filter]


def four(transcripts, refusal):
    """Refused and asked, forbidden; refused and asked, allowed."""
    return [
        sum(f == kind and (what == 1 or a == refusal) for f, a in transcripts)
        for kind in (True, False)
        for what in (0, 1)
    ]


def shares(change):
    return lambda transcripts, refusal: change(*four(transcripts, refusal))


WRONG["08c-refusals"] = numbered(
    [
        (shares(lambda a, n, b, m: (b / m, a / n)), "exchanged"),
        (shares(lambda a, n, b, m: (a / (n + m), b / (n + m))), "not by all"),
        (shares(lambda a, n, b, m: (a / max(a + b, 1), b / max(a + b, 1))), "by all that was refused"),
        (shares(lambda a, n, b, m: (a / n, b / max(a + b, 1))), "of the ALLOWED requests"),
        (shares(lambda a, n, b, m: (a / max(a + b, 1), b / m)), "would be a precision"),
        (shares(lambda a, n, b, m: (1 - a / n, b / m)), "not the share that got through"),
        (shares(lambda a, n, b, m: (a / n, (m - b) / m)), "the other part"),
        (shares(lambda a, n, b, m: (a, b)), "those are counts"),
        (shares(lambda a, n, b, m: (100 * a / n, 100 * b / m)), "in percent"),
        (lambda t, r: refusal_rates([(f, r if r in a else a) for f, a in t], r), "goes on talking"),
        (lambda t, r: refusal_rates([(f, a[: len(r)]) for f, a in t], r), "goes on talking"),
        (shares(lambda a, n, b, m: ((a + b) / (n + m),) * 2), "not one"),
        (lambda t, r: refusal_rates(t, "That I may not tell."), "compare with `refusal`"),
        (shares(lambda a, n, b, m: a / n), "return two numbers"),
    ]
)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_the_exposure_of_what_was_never_planted_is_log2_e_on_average():
    """A rank drawn evenly from 1 to N has the mean of log2(N / rank), nearly 1 / ln 2 for a large N."""
    losses = torch.rand(4096, generator=torch.Generator().manual_seed(5))
    mean = sum(exposure(losses, i) for i in range(len(losses))) / len(losses)
    assert mean == pytest.approx(1 / math.log(2), abs=0.01)


def test_one_example_moves_the_clipped_sum_by_at_most_c():
    """What the guarantee rests on, for a batch with and without one example of any size."""
    generator = torch.Generator().manual_seed(6)
    rows, nothing = torch.randn(9, 5, generator=generator), torch.zeros(5)
    for size in (0.01, 1.0, 1000.0):
        more = torch.cat([rows, size * torch.randn(1, 5, generator=generator)])
        with_it, without = (len(g) * private_gradient(g, 1.5, 0.0, nothing) for g in (more, rows))
        assert (with_it - without).norm() <= 1.5 + 1e-4
