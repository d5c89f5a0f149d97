"""Exercises of chapter 5c, precision and speed: right answers pass, each usual slip gets its own sentence."""

import struct

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong, numbered

from llmcourse.teach.chapters.ch05c_precision_and_speed.solutions import block_flops, next_scale, to_bf16

RIGHT, WRONG = {}, {}


# ---- 05c-bits -------------------------------------------------------------------------------


def with_numpy(x):
    bits = x.numpy().view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def by_choosing(x):
    bits = x.view(torch.int32)
    low = bits & ~0xFFFF
    high, rest = low + 0x10000, bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (((bits >> 16) & 1) == 1))
    return torch.where(up, high, low).view(torch.float32)


def one_by_one(x):
    def rounded(number):
        (bits,) = struct.unpack("<I", struct.pack("<f", number))
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return struct.unpack("<f", struct.pack("<I", bits))[0]

    return torch.tensor([rounded(number) for number in x.flatten().tolist()]).view(x.shape)


def as_bfloat16(x):
    return to_bf16(x).bfloat16()


RIGHT["05c-bits"] = [to_bf16, with_numpy, by_choosing, one_by_one, as_bfloat16]


def bits_of(x):
    return x.view(torch.int32)


WRONG_BITS = {
    "rounds towards zero": lambda x: (bits_of(x) & ~0xFFFF).view(torch.float32),
    "always round away": lambda x: ((bits_of(x) + 0xFFFF) & ~0xFFFF).view(torch.float32),
    "257 lies in the middle": lambda x: ((bits_of(x) + 0x8000) & ~0xFFFF).view(torch.float32),
    "259 lies in the middle": lambda x: ((bits_of(x) + 0x7FFF) & ~0xFFFF).view(torch.float32),
    "still integers": lambda x: (bits_of(x) + 0x7FFF + ((bits_of(x) >> 16) & 1)) & ~0xFFFF,
    "converted the integers": lambda x: bits_of(x).float(),
    "as it is": lambda x: x,
    "that is float16": lambda x: x.half().float(),
    "are not 0": lambda x: bits_of(x).add(0x7FFF).view(torch.float32),
    "some results are far": lambda x: torch.zeros_like(x),
    "but not for negative": lambda x: torch.where(
        x < 0, (bits_of(x) & ~0xFFFF).view(torch.float32), to_bf16(x)
    ),
    "the shape of x": lambda x: to_bf16(x).sum(),
    "carry into the exponent": lambda x: torch.where(
        (bits_of(x) & 0x7F0000) == 0x7F0000, (bits_of(x) & ~0xFFFF).view(torch.float32), to_bf16(x)
    ),
    "zero or subnormal": lambda x: torch.where(x.abs() < 1e-38, 0.0, to_bf16(x)),
    "not for a matrix": lambda x: to_bf16(x) if x.dim() == 1 else x.half().float(),
    "not the nearest": lambda x: to_bf16(x * 1.001),
}


WRONG_BITS["you let .bfloat16() do it"] = lambda x: x.bfloat16().float()
WRONG["05c-bits"] = {part: (part, answer) for part, answer in WRONG_BITS.items()}
WRONG["05c-bits"]["converted by to"] = ("you let .bfloat16() do it", lambda x: x.to(torch.bfloat16))


# ---- 05c-scaler -----------------------------------------------------------------------------


def counting_first(scale, good_steps, overflow, growth_interval):
    good_steps = 0 if overflow else good_steps + 1
    scale = scale * 0.5 if overflow else scale
    if good_steps >= growth_interval:
        scale, good_steps = scale * 2, 0
    return [scale, good_steps]


def with_tensors(scale, good_steps, overflow, growth_interval):
    scale, good_steps = next_scale(scale, good_steps, overflow, growth_interval)
    return torch.tensor(scale), np.int64(good_steps)


RIGHT["05c-scaler"] = [next_scale, counting_first, with_tensors, lambda *state: np.array(next_scale(*state))]


def always_growing(scale, good, overflow, interval):
    return (scale / 2, 0) if overflow else (scale * 2, good + 1)


def growing_late(scale, good, overflow, interval):
    if overflow:
        return scale / 2, 0
    return (scale * 2, 0) if good == interval else (scale, good + 1)


def keeping_the_count(scale, good, overflow, interval):
    if overflow:
        return scale / 2, good
    return (scale * 2, 0) if good + 1 == interval else (scale, good + 1)


def never_restarting(scale, good, overflow, interval):
    if overflow:
        return scale / 2, 0
    return (scale * 2, good + 1) if (good + 1) % interval == 0 else (scale, good + 1)


def frozen_count(scale, good, overflow, interval):
    if overflow:
        return scale / 2, 0
    return (scale * 2, 0) if good + 1 == interval else (scale, good)


def only_five(scale, good, overflow, interval):
    return next_scale(scale, good, overflow, 5)


WRONG_SCALES = [
    (always_growing, "at each good step"),
    (growing_late, "Count this step before"),
    (keeping_the_count, "an overflow ends the row"),
    (never_restarting, "starts again"),
    (frozen_count, "the count is 2, not 1"),
    (only_five, "growth_interval=3"),
    (lambda scale, good, overflow, interval: (scale, good + 1), "the scale must fall"),
    (lambda scale, good, overflow, interval: (scale * 2, 0), "too LARGE"),
    (lambda scale, good, overflow, interval: (scale / 4, 0), "512, not 256"),
    (lambda scale, good, overflow, interval: scale / 2, "return two numbers"),
]


WRONG["05c-scaler"] = numbered(WRONG_SCALES)


# ---- 05c-flops ------------------------------------------------------------------------------


def part_by_part(d_model, d_ff, context_length):
    total = 0
    for inputs, outputs in [(d_model, 3 * d_model), (d_model, d_model), (d_model, d_ff), (d_ff, d_model)]:
        total += 2 * inputs * outputs
    return np.float64(total + 4 * context_length * d_model)


RIGHT["05c-flops"] = [
    block_flops,
    part_by_part,
    lambda d_model, d_ff, context_length: 4 * (2 * d_model**2 + d_model * d_ff + context_length * d_model),
    lambda *shape: torch.tensor(block_flops(*shape), dtype=torch.int32),
]
WRONG_FLOPS = [
    (lambda c, f, t: 4 * c * c + 2 * c * f + 2 * t * c, "a multiplication AND"),
    (lambda c, f, t: 8 * c * c + 4 * c * f, "attention itself is missing"),
    (lambda c, f, t: 8 * c * c + 4 * c * f + 2 * t * c, "2 operations for each number too"),
    (lambda c, f, t: 3 * block_flops(c, f, t), "forward only"),
    (lambda c, f, t: t * block_flops(c, f, t), "for ONE token"),
    (lambda c, f, t: 6 * c * c + 4 * c * f + 4 * t * c, "output projection is missing"),
    (lambda c, f, t: 2 * c * c + 4 * c * f + 4 * t * c, "one matrix of the four"),
    (lambda c, f, t: 8 * c * c + 2 * c * f + 4 * t * c, "two matrices, up and down"),
    (lambda c, f, t: 8 * c * c + 6 * c * f + 4 * t * c, "as SwiGLU"),
    (lambda c, f, t: 8 * c * c + 4 * c * f + 2 * (t + 1) * c, "causal half"),
    (lambda c, f, t: 8 * c * c + 4 * t * c, "the MLP is missing"),
    (lambda c, f, t: 8 * c * c + 4 * c * f + 4 * t * t * c, "ONE token is one query"),
    (lambda c, f, t: block_flops(48, 200, 32), "but not for"),
    (lambda c, f, t: 1.0, "yours is 1"),
]


WRONG["05c-flops"] = numbered(WRONG_FLOPS)


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_flops_agree_with_the_package():
    from dataclasses import replace

    from llmcourse.model import ModelConfig
    from llmcourse.tune.costs import flops_per_token

    config = ModelConfig.gpt2(70, context_length=32, d_model=48, n_heads=4, d_ff=200, n_layers=1)
    two = replace(config, n_layers=2)
    block = flops_per_token(two, backward=False) - flops_per_token(config, backward=False)
    assert block_flops(48, 200, 32) == block


def test_the_rule_of_the_scale_is_that_of_torch():
    """The check follows the rule itself; here it meets the one that torch.amp.GradScaler calls, over a long run."""
    for interval in (3, 1):
        scale, count = 256.0, 0
        theirs, tracker = torch.tensor(scale), torch.tensor(count, dtype=torch.int32)
        for overflow in [False] * 7 + [True, True] + [False] * 4 + [True] + [False] * 6:
            torch._amp_update_scale_(theirs, tracker, torch.tensor(float(overflow)), 2.0, 0.5, interval)
            scale, count = next_scale(scale, count, overflow, interval)
            assert (scale, count) == (theirs.item(), tracker.item())
