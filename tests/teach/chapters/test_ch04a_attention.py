"""Chapter 4a: answers that learners give, right and wrong."""

import math

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 04a-softmax


def softmax_by_numpy(scores):
    scores = scores.numpy().astype(np.float64)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def softmax_by_rows(scores):
    result = torch.empty_like(scores)
    for row, place in zip(scores.view(-1, scores.shape[-1]), result.view(-1, scores.shape[-1]), strict=True):
        place[:] = (row - row.max()).exp()
        place /= place.sum()
    return result


def softmax_in_place(scores):
    scores -= scores.amax(-1, keepdim=True)
    scores.exp_()
    scores /= scores.sum(-1, keepdim=True)
    return scores


def normalized(powers, dim=-1):
    return powers / powers.sum(dim, keepdim=True)


RIGHT["04a-softmax"] = [
    softmax_by_numpy,
    softmax_by_rows,
    softmax_in_place,
    lambda x: (x - x.logsumexp(-1, keepdim=True)).exp().tolist(),
]
WRONG["04a-softmax"] = {
    "first dimension": ("LAST dimension", lambda x: x.softmax(0)),
    "middle dimension": ("LAST dimension", lambda x: x.softmax(1)),
    "all entries": ("ALL entries", lambda x: x.exp() / x.exp().sum()),
    "no division": ("each row must sum to 1", lambda x: x.exp()),
    "log_softmax": ("each row must sum to 1", lambda x: x.log_softmax(-1)),
    "no exponential": ("rows sum to 1 but differ", normalized),
    "powers of 2": ("rows sum to 1 but differ", lambda x: normalized(2**x)),
    "overflows": ("nan: subtract the row's maximum", lambda x: normalized(x.exp())),
    "maximum of all": ("EACH row", lambda x: normalized((x - x.max()).exp())),
    "maximum of a column": ("ONE number", lambda x: normalized((x - x.amax(0, keepdim=True)).exp())),
    "minimum": ("the row's MAXIMUM", lambda x: normalized((x - x.amin(-1, keepdim=True)).exp())),
    "mean": ("the row's MAXIMUM", lambda x: normalized((x - x.mean(-1, keepdim=True)).exp())),
    "largest size": ("the row's MAXIMUM", lambda x: normalized((x - x.abs().amax(-1, keepdim=True)).exp())),
    "clamped": ("the row's MAXIMUM", lambda x: normalized(x.clamp(-80, 80).exp())),
    "without keepdim": ("keepdim=True", lambda x: x.exp() / x.exp().sum(-1)),
    "numpy's max": (
        "x.max(dim=-1, keepdim=True).values",
        lambda x: normalized(np.exp(x - np.max(x, axis=-1, keepdims=True))),
    ),
    "without values, subtracted": ("`.values`", lambda x: normalized((x - x.max(-1, keepdim=True)).exp())),
    "max without values": (".values or .indices", lambda x: x.max(-1)),
    "rounded": ("rounded", lambda x: x.softmax(-1).round(decimals=2)),
    "without values": ("`.values`", lambda x: x - x.max(dim=-1, keepdim=True)),
    "rows in a list": ("torch.stack or torch.cat", lambda x: [row.softmax(-1) for row in x]),
    "flattened": ("yours is (24,)", lambda x: x.softmax(-1).flatten()),
    "the largest weight": ("yours is (2, 3)", lambda x: x.softmax(-1).amax(-1)),
}

# 04a-scale

RIGHT["04a-scale"] = [16.0, 256**0.5, np.sqrt(256), torch.tensor(256.0).sqrt()]
WRONG["04a-scale"] = {
    "variance": ("the variance", 256),
    "factor": ("multiplies by", 1 / 16),
    "one entry": ("sum of 256 products", 1.0),
    "near": ("16.1 is not the root", 16.1),
    "twice": ("is not the root", math.sqrt(512)),
    "text": ("not '16'", "16"),
}

# 04a-causal


def forbidden(x, diagonal=1):
    return torch.ones(x.shape[-2:], dtype=torch.bool).triu(diagonal)


def causal_by_loops(scores):
    weights = torch.zeros_like(scores)
    for i in range(scores.shape[-1]):
        weights[..., i, : i + 1] = scores[..., i, : i + 1].softmax(-1)
    return weights


def causal_in_place(scores):
    scores[..., forbidden(scores)] = float("-inf")
    return scores.softmax(-1)


def mask_for(x, T):
    return torch.full((T, T), float("-inf")).triu(1)


RIGHT["04a-causal"] = [
    causal_by_loops,
    causal_in_place,
    lambda x: (x + mask_for(x, x.shape[-1])).double().softmax(-1).numpy(),
    lambda x: x.masked_fill(forbidden(x), -1e9).softmax(-1),
    lambda x: normalized(x.softmax(-1).tril()),
]
WRONG["04a-causal"] = {
    "no mask": ("still looks ahead", lambda x: x.softmax(-1)),
    "after the softmax": ("masked AFTER the softmax", lambda x: x.softmax(-1).tril()),
    "wrong way round": (
        "the wrong way round",
        lambda x: x.masked_fill(~forbidden(x, 0), -math.inf).softmax(-1),
    ),
    "wrong way round, without itself": (
        "must see itself",
        lambda x: x.masked_fill(~forbidden(x), -math.inf).softmax(-1),
    ),
    "hides itself": ("must see itself", lambda x: x.masked_fill(forbidden(x, 0), -math.inf).softmax(-1)),
    "hides itself with -1e9": ("look", lambda x: x.masked_fill(forbidden(x, 0), -1e9).softmax(-1)),
    "one step ahead": ("still looks ahead", lambda x: x.masked_fill(forbidden(x, 2), -math.inf).softmax(-1)),
    "zeros instead of -inf": ("must be -inf, not 0", lambda x: x.tril().softmax(-1)),
    "nearly low enough": ("with weight", lambda x: x.masked_fill(forbidden(x), -60).softmax(-1)),
    "not low enough": ("must be -inf", lambda x: x.masked_fill(forbidden(x), -10).softmax(-1)),
    "plus infinity": ("nan", lambda x: x.masked_fill(forbidden(x), math.inf).softmax(-1)),
    "0 * inf": ("0 * inf is nan", lambda x: (x + forbidden(x) * -math.inf).softmax(-1)),
    "softmax over queries": ("dim=-1", lambda x: x.masked_fill(forbidden(x), -math.inf).softmax(-2)),
    "no softmax": ("the softmax is missing", lambda x: x.masked_fill(forbidden(x), -math.inf)),
    "the mask": ("not 1", lambda x: (~forbidden(x)).expand(x.shape)),
    "only two dimensions": ("here (2, 4, 4); yours is (4, 4)", lambda x: causal_by_loops(x[0])),
    "three dimensions only": ("your code raised", lambda x: (x + mask_for(x, x.shape[1])).softmax(-1)),
    "batch taken for time": (
        "Is a size taken from the right dimension?",
        lambda x: (x + mask_for(x, len(x))).softmax(-1),
    ),
    "scaled": ("the other weights are not", lambda x: causal_by_loops(x / 2)),
    "fixed size": ("your code raised", lambda x: (x + mask_for(x, 4)).softmax(-1)),
    "rows in a list": ("torch.stack or torch.cat", lambda x: list(causal_by_loops(x))),
}

# 04a-query

RIGHT["04a-query"] = [
    lambda keys, i: keys[i] * 10,
    lambda keys, i: 1000 * (keys[i] - keys.mean(0)),
    lambda keys, i: (torch.linalg.pinv(keys.double())[:, i] * 80).requires_grad_(),
    lambda keys, i: np.linalg.lstsq(keys.numpy(), 100 * np.eye(5)[i], rcond=None)[0],
    lambda keys, i: [5 * x for x in keys[i].tolist()],
    lambda keys, i: keys[i].mul_(4),
]
WRONG["04a-query"] = {
    "the key as it is": ("length of q", lambda keys, i: keys[i]),
    "a short key": ("length of q", lambda keys, i: keys[i] / keys[i].norm()),
    "all keys": ("finds key", lambda keys, i: 20 * keys.sum(0)),
    "another key": ("finds key 3 instead of key 2", lambda keys, i: 20 * keys[(i + 1) % 5]),
    "always key 2": ("instead of key 0", lambda keys, i: 20 * keys[2]),
    "the opposite": ("finds key", lambda keys, i: -20 * keys[i]),
    "one-hot": ("finds key", lambda keys, i: 20 * torch.eye(64)[i + 1]),
    "weights": ("yours has (5,)", lambda keys, i: torch.eye(5)[i]),
    "a row": ("yours has (1, 64)", lambda keys, i: 20 * keys[i : i + 1]),
    "a column": ("yours has (5,)", lambda keys, i: 20 * keys[:, i]),
    "too long": ("overflow", lambda keys, i: keys[i] * 1e38),
    "swapped": ("your code raised", lambda keys, i: i[keys]),
    "all five": ("yours has (5, 64)", lambda keys, i: keys),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
