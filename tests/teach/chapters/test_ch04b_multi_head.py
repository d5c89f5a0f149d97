"""Chapter 4b: answers that learners give, right and wrong."""

import math

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 04b-split

RIGHT["04b-split"] = [
    lambda x, H: torch.stack(x.chunk(H, dim=-1), dim=1),
    lambda x, H: x.reshape(*x.shape[:2], H, -1).permute(0, 2, 1, 3),
    lambda x, H: np.stack(np.split(x.numpy().astype(np.float64), H, axis=-1), axis=1),
    lambda x, H: x.unflatten(-1, (H, -1)).transpose(1, 2).contiguous().long(),
]
WRONG["04b-split"] = {
    "plain view": ("mixes numbers of different tokens", lambda x, H: x.view(x.shape[0], H, x.shape[1], -1)),
    "not transposed": ("swap T and H", lambda x, H: x.view(*x.shape[:2], H, -1)),
    "every 4th column": ("every 4th column", lambda x, H: x.view(*x.shape[:2], -1, H).permute(0, 3, 1, 2)),
    "number for width": ("yours is (2, 5, 3, 4)", lambda x, H: x.view(*x.shape[:2], -1, H).transpose(1, 2)),
    "transposed too far": (
        "yours is (2, 4, 5, 3)",
        lambda x, H: x.view(*x.shape[:2], H, -1).permute(0, 2, 3, 1),
    ),
    "heads in a list": ("torch.stack", lambda x, H: list(x.chunk(H, dim=-1))),
    "stacked in front": ("yours is (4, 2, 3, 5)", lambda x, H: torch.stack(x.chunk(H, dim=-1))),
    "stacked wide": ("your code raised", lambda x, H: torch.stack(x.split(3, dim=-1), dim=1)),
    "heads in reverse": ("head 0 is not", lambda x, H: torch.stack(x.chunk(H, dim=-1)[::-1], dim=1)),
    "the whole width": ("yours is (2, 4, 3, 20)", lambda x, H: x[:, None].expand(-1, H, -1, -1)),
    "time cut": ("your code raised", lambda x, H: x.view(2, H, x.shape[1] // H, -1)),
    "unchanged": ("yours is (2, 3, 20)", lambda x, H: x),
}

# 04b-parameters

RIGHT["04b-parameters"] = [2**20, 1_048_576.0, np.int64(4) * 512 * 512, 4 * 512**2]
WRONG["04b-parameters"] = {
    "no output": ("output projection is missing", 3 * 512**2),
    "full width for each head": ("SHARE the width", 8 * 4 * 512**2),
    "full width, no output": ("SHARE the width", 8 * 3 * 512**2),
    "one head": ("8 of them", 4 * 512 * 64),
    "one matrix": ("one matrix", 512**2),
    "biases": ("biases", 4 * 512**2 + 4 * 512),
    "off by one": ("is not the number of entries", 2**20 + 1),
    "text": ("give a number", "1,048,576"),
    "tuple": ("give a number", (1, 48, 576)),
}

# 04b-share


def share_by_loop(keys, group):
    result = []
    for head in range(keys.shape[1]):
        result.extend([keys[:, head]] * group)
    return torch.stack(result, dim=1)


RIGHT["04b-share"] = [
    share_by_loop,
    lambda keys, g: keys[:, :, None].expand(-1, -1, g, -1, -1).flatten(1, 2),
    lambda keys, g: keys.unsqueeze(2).repeat(1, 1, g, 1, 1).flatten(1, 2),
    lambda keys, g: np.repeat(keys.numpy(), g, axis=1).astype(np.float64),
    lambda keys, g: keys[:, torch.arange(keys.shape[1] * g) // g],
]
WRONG["04b-share"] = {
    "repeat": ("0 1 0 1", lambda keys, g: keys.repeat(1, g, 1, 1)),
    "cat": ("0 1 0 1", lambda keys, g: torch.cat([keys] * g, dim=1)),
    "no dimension": ("yours is (240,)", lambda keys, g: keys.repeat_interleave(g)),
    "batch": ("yours is (6, 2, 4, 5)", lambda keys, g: keys.repeat_interleave(g, dim=0)),
    "time": ("yours is (2, 2, 12, 5)", lambda keys, g: keys.repeat_interleave(g, dim=2)),
    "five dimensions": ("yours is (2, 2, 3, 4, 5)", lambda keys, g: torch.stack([keys] * g, dim=2)),
    "unchanged": ("yours is (2, 2, 4, 5)", lambda keys, g: keys),
    "heads in a list": ("torch.stack", lambda keys, g: [keys[:, h // g] for h in range(2 * g)]),
    "mixed positions": (
        "not the key heads 0 0 0 1 1 1",
        lambda keys, g: keys.repeat_interleave(g, dim=2).reshape(2, -1, 4, 5).flip(1),
    ),
    "first head only": ("not the key heads", lambda keys, g: keys[:, :1].expand(-1, 2 * g, -1, -1)),
    "swapped": ("your code raised", lambda keys, g: g.repeat_interleave(keys, dim=1)),
}

# 04b-cache

RIGHT["04b-cache"] = [
    lambda layers, heads, d, T, B, size: sum(2 * heads * d * T * B * size for _ in range(layers)),
    lambda *parts: np.prod(parts) * 2,
    lambda *parts: 2.0 * math.prod(parts),
    lambda *parts: torch.tensor(parts).prod() * 2,
]
WRONG["04b-cache"] = {
    "keys only": ("keys OR the values", lambda *parts: math.prod(parts)),
    "bits": ("in bits", lambda *parts: 16 * math.prod(parts)),
    "four": ("twice too much", lambda *parts: 4 * math.prod(parts)),
    "no batch": ("twice the batch_size", lambda n, h, d, T, B, size: 2 * n * h * d * T * size),
    "no layers": ("twice the n_layers", lambda n, h, d, T, B, size: 2 * h * d * T * B * size),
    "fixed 2 bytes": ("twice the bytes_per_number", lambda n, h, d, T, B, size: 4 * n * h * d * T * B),
    "one position less": (
        "all of the context_length positions",
        lambda n, h, d, T, B, s: 2 * n * h * d * (T - 1) * B * s,
    ),
    "fixed": ("the same for every input", lambda *parts: 2**30),
    "1 %": ("1.01 times", lambda *parts: 2.02 * math.prod(parts)),
    "square of the length": ("grows 4 times", lambda n, h, d, T, B, size: 2 * n * h * d * T * T * B * size),
    "sum": ("you add", lambda *parts: 2 * sum(parts)),
    "GiB": ("1,073,741,824 bytes", lambda *parts: 2 * math.prod(parts) / 2**30),
    "zero": ("you get 0", lambda *parts: math.prod(parts) // 2**40),
    "text": ("give a number, not '1 GiB'", lambda *parts: "1 GiB"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
