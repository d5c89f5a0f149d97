"""Chapter 5c, tuning: right answers in many forms, and what is said to the wrong ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

from llmcourse.teach.chapters.ch05c_tuning import checks, solutions
from llmcourse.tune.noise_scale import noise_scale

RIGHT, WRONG = {}, {}


def solved(a, b, small, large):
    return np.linalg.solve([[1, 1 / small], [1, 1 / large]], [a, b])


def from_numpy(a, b, small, large):
    gradient, trace = solved(a, b, small, large)
    return trace / gradient


RIGHT["05c-noise-scale"] = [
    solutions.simple_noise_scale,
    lambda a, b, small, large: noise_scale(a, b, small, large).scale,
    from_numpy,
    lambda a, b, n, m: n * m * (a - b) / (m * b - n * a),
    lambda a, b, n, m: torch.tensor((a - b) / (1 / n - 1 / m) / ((m * b - n * a) / (m - n))),
]
WRONG["05c-noise-scale"] = {
    "trace alone": ("that is tr(Σ): divide", lambda *a: solved(*a)[1]),
    "gradient alone": ("that is |G|²", lambda *a: solved(*a)[0]),
    "upside down": ("upside down", lambda *a: solved(*a)[0] / solved(*a)[1]),
    "large for true": ("you take the large batch's square", lambda a, b, n, m: solved(a, b, n, m)[1] / b),
    "small for true": ("you take the small batch's square", lambda a, b, n, m: solved(a, b, n, m)[1] / a),
    "difference only": (
        "the difference of the squares is not tr(Σ)",
        lambda a, b, n, m: (a - b) / solved(a, b, n, m)[0],
    ),
    "sizes not inverted": (
        "the noise falls like 1/B",
        lambda a, b, n, m: (b - a) / (n - m) / solved(a, b, n, m)[0],
    ),
    "sign": ("sign of tr", lambda *a: -from_numpy(*a)),
    "exchanged": ("the two sizes are exchanged", lambda a, b, n, m: from_numpy(a, b, m, n)),
    "ratio": ("ratio of the two squares", lambda a, b, n, m: a / b),
    "root": ("square root", lambda *a: from_numpy(*a) ** 0.5),
    "fixed sizes": ("right for sizes 4 and 16, but", lambda a, b, n, m: from_numpy(a, b, 4, 16)),
    "something else": ("the noise scale is 20", lambda a, b, n, m: 7.0),
    "a pair": ("give a number", lambda *a: tuple(solved(*a))),
}


def accumulating(divide, reset=False, backward=True, count=lambda y: y != -100, report=None):
    """The solution, with each part open to a slip; `divide(n, counted, parts)` is the divisor."""

    def function(model, parts):
        counted, total = sum(int(count(y).sum()) for _, y in parts), 0.0
        for x, y in parts:
            if reset:
                model.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum", ignore_index=-100)
            loss = loss / divide(int(count(y).sum()), counted, len(parts))
            if backward:
                loss.backward()
            total += loss.item()
        return report(total) if report else total

    return function


def whole(n, counted, parts):
    return counted


def mask_by_hand(model, parts):
    losses, n = [], sum(int((y >= 0).sum()) for _, y in parts)
    for x, y in parts:
        keep = y >= 0
        loss = F.cross_entropy(model(x)[keep], y[keep], reduction="none").sum() / n
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def weighted_means(model, parts):
    n, total = [(y != -100).sum() for _, y in parts], 0.0
    for count, (x, y) in zip(n, parts, strict=True):
        loss = F.cross_entropy(model(x).transpose(1, 2), y) * count / sum(n)
        loss.backward()
        total += loss.detach()
    return total


def scaled_afterwards(model, parts):
    total, n = 0.0, 0
    for x, y in parts:
        loss = F.cross_entropy(model(x).transpose(1, 2), y, reduction="sum")
        loss.backward()
        total, n = total + loss.item(), n + int((y != -100).sum())
    for parameter in model.parameters():
        parameter.grad /= n
    return np.float64(total / n)


def one_backward(model, parts):
    """Wrong in memory only, which the check does not see: it keeps all graphs."""
    n = sum((y != -100).sum() for _, y in parts)
    losses = [F.cross_entropy(model(x).transpose(1, 2), y, reduction="sum") for x, y in parts]
    (sum(losses) / n).backward()
    return sum(losses) / n


def at_once(model, parts):
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    loss = F.cross_entropy(model(x).transpose(1, 2), y)
    loss.backward()
    return loss


def no_ignoring(model, parts):
    n, total = sum(y.numel() for _, y in parts), 0.0
    for x, y in parts:
        loss = F.cross_entropy(model(x).transpose(1, 2), y.clamp(min=0), reduction="sum") / n
        loss.backward()
        total += loss.item()
    return total


RIGHT["05c-accumulate"] = [
    solutions.accumulate,
    accumulating(whole),
    mask_by_hand,
    weighted_means,
    scaled_afterwards,
    one_backward,
]
WRONG["05c-accumulate"] = {
    "mean of means": ("you average the means", accumulating(lambda n, c, k: n * k)),
    "sum of means": ("you add up the means", accumulating(lambda n, c, k: n)),
    "sum of sums": ("you add up sums", accumulating(lambda n, c, k: 1)),
    "counts the ignored": ("those of -100 do not", accumulating(whole, count=lambda y: y > -1000)),
    "by parts": ("you divide by the number of parts", accumulating(lambda n, c, k: k)),
    "zero_grad inside": ("only the last part is left", accumulating(whole, reset=True)),
    "zero_grad and own mean": ("as its own mean", accumulating(lambda n, c, k: n, reset=True)),
    "no backward": ("gradients are empty", accumulating(whole, backward=False)),
    "first part only": (
        "only the first part",
        lambda m, p: accumulating(lambda n, c, k: sum(int((y != -100).sum()) for _, y in p))(m, p[:1]),
    ),
    "all at once": ("memory of the large batch", at_once),
    "wrong report": ("the returned loss", accumulating(whole, report=lambda total: total * 3)),
    "a list of losses": ("give a number", accumulating(whole, report=lambda total: [total])),
    "ignored become 0": ("away from that of one large batch", no_ignoring),
}


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


def by(factor):
    return lambda gradients, max_norm: [g * factor(flat(gradients), max_norm) for g in gradients]


def with_torch(gradients, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [p.grad for p in parameters]


def in_numpy(gradients, max_norm):
    length = np.sqrt(sum(float((g.numpy() ** 2).sum()) for g in gradients))
    return [g.numpy() * (max_norm / length if length > max_norm else 1.0) for g in gradients]


def in_place(gradients, max_norm):
    length = flat(gradients).norm()
    if length > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / length)
    return gradients


RIGHT["05c-clip"] = [
    solutions.clip,
    with_torch,
    in_numpy,
    in_place,
    lambda g, m: tuple(by(lambda x, m: (m / (x.norm() + 1e-6)).clamp(max=1))(g, m)),
    by(lambda x, m: m / max(x.norm(), torch.tensor(m))),
]
WRONG["05c-clip"] = {
    "nothing": ("nothing was shortened", lambda g, m: g),
    "one by one": ("you shorten each tensor", lambda g, m: [x * min(1, m / x.norm()) for x in g]),
    "clamp": ("cut off single numbers", lambda g, m: [x.clamp(-m, m) for x in g]),
    "to length 1": ("that gives length 1", by(lambda x, m: 1 / x.norm())),
    "sum of lengths": ("add the lengths", lambda g, m: [x * m / sum(y.norm() for y in g) for x in g]),
    "no root": ("the root is missing", by(lambda x, m: m / x.square().sum())),
    "by max_norm": ("you divide by max_norm", by(lambda x, m: 1 / m)),
    "absolute values": ("sum of absolute values", by(lambda x, m: m / x.abs().sum())),
    "largest": ("largest entry", by(lambda x, m: m / x.abs().max())),
    "always scaled": ("must stay as it is", by(lambda x, m: m / (x.norm() + 1e-9))),
    "zeros": ("NaN", by(lambda x, m: torch.minimum(x.norm(), torch.tensor(m)) / x.norm())),
    "one tensor": ("return a list of 3", lambda g, m: flat(g)),
    "flattened": ("came back as", lambda g, m: [x.flatten() for x in g]),
    "another factor": ("the joint length should be 2", by(lambda x, m: 0.7 * m / x.norm())),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_accumulate_leaves_the_gradient_of_the_whole_batch():
    model, parts = checks._model_and_parts()
    loss = solutions.accumulate(model, parts)
    accumulated = checks._gradient(model)
    again, _ = checks._model_and_parts()
    whole_loss = at_once(again, parts)
    assert torch.allclose(accumulated, checks._gradient(again), rtol=1e-9)
    assert loss == pytest.approx(whole_loss.item())
