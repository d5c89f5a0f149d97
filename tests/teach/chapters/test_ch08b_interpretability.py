"""Chapter 8b: answers that learners give, right and wrong."""

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 08b-ablate


def ablate_by_sum(heads, W, h):
    D, total = heads.shape[-1], 0
    for i in range(heads.shape[2]):
        if i != h:
            total = total + heads[:, :, i] @ W[:, i * D : (i + 1) * D].T
    return total


def ablate_by_columns(heads, W, h):
    D = heads.shape[-1]
    W = W.clone()
    W[:, h * D : (h + 1) * D] = 0
    return torch.nn.functional.linear(heads.flatten(2), W)


def ablate_in_place(heads, W, h):
    heads[:, :, h].zero_()
    return heads.reshape(*heads.shape[:2], -1) @ W.T


def ablate_in_numpy(heads, W, h):
    heads, W = heads.numpy().astype(np.float64), W.numpy().astype(np.float64)
    mask = (np.arange(heads.shape[2]) != h)[:, None]
    return np.einsum("bthd,chd->btc", heads * mask, W.reshape(len(W), *heads.shape[2:]))


RIGHT["08b-ablate"] = [ablate_by_sum, ablate_by_columns, ablate_in_place, ablate_in_numpy]


def zeroed(place):
    def answer(heads, W, h):
        heads[place(h)] = 0
        return heads.flatten(2) @ W.T

    return answer


def result_zeroed(heads, W, h):
    D, y = heads.shape[-1], heads.flatten(2) @ W.T
    y[..., h * D : (h + 1) * D] = 0
    return y


def every_column(heads, W, h):
    x = heads.flatten(2)
    x[..., h :: heads.shape[2]] = 0
    return x @ W.T


WRONG["08b-ablate"] = {
    "the head alone": (
        "it alone",
        lambda x, W, h: x[:, :, h] @ W[:, h * x.shape[-1] : (h + 1) * x.shape[-1]].T,
    ),
    "nothing": ("nothing is taken out", lambda x, W, h: x.flatten(2) @ W.T),
    "another head": ("counted from 0", zeroed(lambda h: (slice(None), slice(None), h - 1))),
    "columns of the result": ("of the RESULT", result_zeroed),
    "every column": ("every H-th column", every_column),
    "not transposed": ("multiply by W.T", lambda x, W, h: ablate_by_sum(x, W.T, h)),
    "scaled": ("as dropout would", lambda x, W, h: ablate_by_sum(x, W, h) * x.shape[2] / (x.shape[2] - 1)),
    "number of every head": (
        "the slice [:, :, h]",
        lambda x, W, h: zeroed(lambda h: (..., h % x.shape[-1]))(x, W, h),
    ),
    "a position": ("differs from the right one by up to", zeroed(lambda h: (slice(None), h))),
    "not projected": (
        "the shape should be (B, T, C)",
        lambda x, W, h: x * (torch.arange(x.shape[2]) != h)[:, None],
    ),
    "cut out": (
        "your code raised",
        lambda x, W, h: x[:, :, [i for i in range(x.shape[2]) if i != h]].flatten(2) @ W.T,
    ),
    "head behind time": (
        "differs from the right one by up to",
        lambda x, W, h: ablate_by_sum(x.transpose(1, 2).reshape(x.shape), W, h),
    ),
    "added": (
        "differs from the right one by up to",
        lambda x, W, h: 2 * (x.flatten(2) @ W.T) - ablate_by_sum(x, W, h),
    ),
}

# 08b-effect


def metric(logits, right, wrong):
    return sum(row[r] - row[w] for row, r, w in zip(logits, right, wrong, strict=True)) / len(logits)


def effect_by_loop(clean, corrupted, patched, right, wrong):
    a, b, c = (metric(x, right, wrong) for x in (clean, corrupted, patched))
    return (c - b) / (a - b)


def effect_by_gather(clean, corrupted, patched, right, wrong):
    runs = torch.stack([clean, corrupted, patched]).double()
    pick = [runs.gather(2, x.view(1, -1, 1).expand(3, -1, 1)).sum((1, 2)) for x in (right, wrong)]
    a, b, c = pick[0] - pick[1]  # sums will do: the number of rows cancels
    return 1 - (a - c) / (a - b)


def effect_by_log_probability(clean, corrupted, patched, right, wrong):
    return effect_by_loop(*(x.log_softmax(-1) for x in (clean, corrupted, patched)), right, wrong)


def effect_in_numpy(clean, corrupted, patched, right, wrong):
    runs = np.stack([clean.numpy(), corrupted.numpy(), patched.numpy()]).astype(np.float64)
    rows = np.arange(len(right))
    a, b, c = (runs[:, rows, wrong.numpy()] - runs[:, rows, right.numpy()]).mean(-1)  # the sign cancels
    return (c - b) / (a - b)


RIGHT["08b-effect"] = [effect_by_loop, effect_by_gather, effect_by_log_probability, effect_in_numpy]


def three(change):
    def answer(clean, corrupted, patched, right, wrong):
        return change(*(metric(x, right, wrong) for x in (clean, corrupted, patched)))

    return answer


def mean_of_ratios(clean, corrupted, patched, right, wrong):
    rows = torch.arange(len(right))
    a, b, c = (x[rows, right] - x[rows, wrong] for x in (clean, corrupted, patched))
    return ((c - b) / (a - b)).mean()


WRONG["08b-effect"] = {
    "mean of ratios": ("means first", mean_of_ratios),
    "other way": ("the other way", three(lambda a, b, c: (a - c) / (a - b))),
    "not divided": ("what there is to win", three(lambda a, b, c: c - b)),
    "by clean": ("not by clean alone", three(lambda a, b, c: (c - b) / a)),
    "nothing subtracted": ("above and below", three(lambda a, b, c: c / a)),
    "right alone": (
        "logit of the right token alone",
        lambda a, b, c, r, w: effect_by_loop(
            *(x.clone().scatter_(1, w[:, None], 0.0) for x in (a, b, c)), r, w
        ),
    ),
    "probabilities": (
        "use the logits",
        lambda a, b, c, r, w: effect_by_loop(*(x.softmax(-1) for x in (a, b, c)), r, w),
    ),
    "first text": ("the first text alone", lambda *parts: effect_by_loop(*(x[:1] for x in parts))),
    "clean less patched": ("you get", three(lambda a, b, c: a - c)),
    "percent": ("100 times", three(lambda a, b, c: 100 * (c - b) / (a - b))),
    "each row": ("give a number", lambda a, b, c, r, w: c[:, 0] - b[:, 0]),
    "whole tensor": ("your code raised", lambda a, b, c, r, w: (c[r] - b[r]) / (a[w + 99] - b[w])),
    "clipped": ("you get", three(lambda a, b, c: ((c - b) / (a - b)).clamp(0, 0.3))),
}

# 08b-induction


def induction_by_loop(weights, n):
    return [sum(float(head[i, i - n + 1]) for i in range(n, len(head))) / (len(head) - n) for head in weights]


def induction_by_mask(weights, n):
    i, j = torch.meshgrid(torch.arange(2 * n), torch.arange(2 * n), indexing="ij")
    places = (j == i - n + 1) & (i >= n)
    return (weights * places).sum((-2, -1)) / n


def induction_in_numpy(weights, n):
    return np.diagonal(weights.numpy()[:, n:, 1:].astype(np.float64), axis1=1, axis2=2)[:, :n].mean(-1)


RIGHT["08b-induction"] = [
    induction_by_loop,
    induction_by_mask,
    induction_in_numpy,
    lambda weights, n: weights[:, range(n, 2 * n), range(1, n + 1)].mean(dim=1),
]


def at(offset, reduce=lambda x: x.mean(-1), first=0):
    return lambda weights, n: reduce(
        weights[:, range(n + first, 2 * n), [i + offset(n) for i in range(n + first, 2 * n)]]
    )


WRONG["08b-induction"] = {
    "whole diagonal": ("also count query n - 1", lambda w, n: w.diagonal(1 - n, dim1=1, dim2=2).mean(-1)),
    "same token": ("the SAME token", at(lambda n: -n)),
    "one before": ("BEFORE the earlier place", at(lambda n: -n - 1, first=1)),
    "previous": ("a previous-token head", at(lambda n: -1)),
    "previous everywhere": ("a previous-token head", lambda w, n: w.diagonal(-1, dim1=1, dim2=2).mean(-1)),
    "sum": ("not the sum", at(lambda n: 1 - n, lambda x: x.sum(-1))),
    "by 2n": ("not by all 2n", at(lambda n: 1 - n, lambda x: x.sum(-1) / (2 * x.shape[-1]))),
    "transposed": ("rows are queries", lambda w, n: w.mT[:, range(n, 2 * n), range(1, n + 1)].mean(-1)),
    "largest": ("largest weight", at(lambda n: 1 - n, lambda x: x.max(-1).values)),
    "counted": (
        "count queries",
        lambda w, n: (w[:, n:].argmax(-1) == torch.arange(1, n + 1)).float().mean(-1),
    ),
    "over heads": (
        "one number for each head",
        at(lambda n: 1 - n, lambda x: x.mean().expand(len(x))),
    ),
    "one number": ("the shape should be (H,)", at(lambda n: 1 - n, lambda x: x.mean())),
    "each query": ("the shape should be (H,)", at(lambda n: 1 - n, lambda x: x)),
    "first copy": ("you get", lambda w, n: w[:, range(2, n), range(1, n - 1)].mean(-1)),
    "text": ("return a tensor", lambda w, n: "high"),
}

# 08b-integrated


def integrated_in_numpy(gradient, x, baseline, n_steps):
    total = np.zeros(len(x))
    for k in range(n_steps):
        point = baseline + (2 * k + 1) / (2 * n_steps) * (x - baseline)
        total += gradient(point).numpy()
    return total / n_steps * (x - baseline).numpy()


def integrated_at_once(gradient, x, baseline, n_steps):
    a = torch.arange(0.5, n_steps) / n_steps
    return gradient(torch.lerp(baseline, x, a[:, None])).mean(0) * (x - baseline)


def integrated_backwards(gradient, x, baseline, n_steps):
    way, total = x - baseline, 0
    for k in range(n_steps):
        total = total + gradient(x - (k + 0.5) / n_steps * way) * way
    return total / n_steps


def integrated_by_steps(gradient, x, baseline, n_steps):
    step = (x - baseline) / n_steps
    point, total = baseline + step / 2, torch.zeros_like(x)
    for _ in range(n_steps):
        total += gradient(point) * step
        point = point + step
    return total


RIGHT["08b-integrated"] = [
    integrated_in_numpy,
    integrated_at_once,
    integrated_backwards,
    integrated_by_steps,
]


def along(shares, factor=lambda x, b: x - b, start=lambda x, b: b, reduce=torch.mean):
    def answer(gradient, x, baseline, n_steps):
        first = start(x, baseline)
        points = torch.stack([first + a * (x - first) for a in shares(n_steps)])
        return reduce(gradient(points), dim=0) * factor(x, baseline)

    return answer


def middles(n):
    return [(k + 0.5) / n for k in range(n)]


WRONG["08b-integrated"] = {
    "mean gradient": ("multiply the mean gradient", along(middles, factor=lambda x, b: 1)),
    "times x": ("not by x", along(middles, factor=lambda x, b: x)),
    "at x": ("the gradient at x alone", lambda g, x, b, n: g(x) * (x - b)),
    "gradient times input": ("gradient times input", lambda g, x, b, n: g(x) * x),
    "left ends": ("the ends of the steps", along(lambda n: [k / n for k in range(n)])),
    "right ends": ("the ends of the steps", along(lambda n: [(k + 1) / n for k in range(n)])),
    "trapezoids": (
        "trapezoidal rule",
        lambda g, x, b, n: (
            sum((g(b + k / n * (x - b)) + g(b + (k + 1) / n * (x - b))) / 2 for k in range(n)) / n * (x - b)
        ),
    ),
    "spread": ("from one end to the other", along(lambda n: torch.linspace(0, 1, n))),
    "spread, one more": ("from one end to the other", along(lambda n: torch.linspace(0, 1, n + 1))),
    "sum": ("not the sum", along(middles, reduce=torch.sum)),
    "from 0": ("starts at 0", along(middles, start=lambda x, b: 0 * x)),
    "sign": ("the other way round", along(middles, factor=lambda x, b: b - x)),
    "one number": ("the shape should be (N,)", lambda g, x, b, n: along(middles)(g, x, b, n).sum()),
    "gradient not called": ("return a tensor", lambda g, x, b, n: g),
    "at the baseline": ("you get", lambda g, x, b, n: g(b) * (x - b)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
