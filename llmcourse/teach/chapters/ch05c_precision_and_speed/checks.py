"""Exercises of chapter 5c, precision and speed."""

import torch

from llmcourse.teach.examine import Calls, examine
from llmcourse.teach.exercises import NotRight, exercise, require
from llmcourse.teach.forms import number, several, tensor


def float_bits(value) -> torch.Tensor:
    """Return `value` as a tensor; raises NotRight for the integers that stand for the bits."""
    if str(getattr(value, "dtype", "")).removeprefix("torch.").lstrip("u").startswith("int"):
        raise NotRight("these are still integers: .view(torch.float32) reads the bits as numbers again")
    return tensor(value)


@exercise(
    "05c-bits",
    "Round to bfloat16 by the bits",
    minutes=10,
    difficulty=3,
    hints=(
        "bfloat16 is the upper half of float32's bits: 16 bits must go. Setting them to 0 rounds towards zero.",
        "Adding half of 2**16 first, 0x8000, carries over when the lower half is more than a half. "
        "It also carries at exactly a half, which is right only if the last bit that stays is 1.",
        "So add 0x7FFF, and 1 more if the last bit that stays, (bits >> 16) & 1, is 1. Then clear the "
        "lower half with & ~0xFFFF. The bits of a negative number work the same way.",
    ),
    wants="function",
    form=float_bits,
)
def check_bits(answer):
    """Compare with torch on plain, half-way, negative and tiny numbers; tell the roundings apart."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(500, generator=generator) * 10.0 ** torch.randint(-6, 7, (500,), generator=generator)
    value = _rounded(answer, plain)
    _require_close(value, plain)
    bits = plain.view(torch.int32)
    cut = (bits & ~0xFFFF).view(torch.float32)
    require(
        not torch.equal(value, cut),
        "you cut the lower 16 bits off, which rounds towards zero: numbers past the middle must go up",
    )
    up = ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)
    require(not torch.equal(value, up), "you always round away from zero: only past the middle")
    positive = plain.abs()
    _same(answer, positive, "that is not the nearest bfloat16")
    _same(answer, -positive, "right for positive numbers, but not for negative ones")
    halves = torch.tensor([257.0, 259.0, 261.0, 1.00390625, 1.01171875, 3.0078125e-3])
    halves = torch.cat([halves, -halves])
    value = _rounded(answer, halves)
    away = ((halves.view(torch.int32) + 0x8000) & ~0xFFFF).view(torch.float32)
    toward = ((halves.view(torch.int32) + 0x7FFF) & ~0xFFFF).view(torch.float32)
    require(
        not torch.equal(value, away),
        "257 lies in the middle of 256 and 258, and you round it up: half-way cases go to the number "
        "whose last bit is 0, 256",
    )
    require(
        not torch.equal(value, toward),
        "259 lies in the middle of 258 and 260, and you round it down: half-way cases go to the number "
        "whose last bit is 0, 260",
    )
    _same(answer, halves, "half-way cases should go to the neighbour whose last bit is 0")
    _same(answer, torch.tensor([1.9999, 3.9999, -255.9]), "a carry into the exponent gets lost")
    _same(answer, torch.tensor([0.0, -0.0, 1e-39, 2e-45]), "right, but not for zero or subnormal numbers")
    _same(answer, plain[:6].view(2, 3), "right for a row of numbers, but not for a matrix")
    return "the same as `x.bfloat16()`, for half-way cases too."


def _rounded(answer, x):
    with Calls() as calls:
        value = answer(x)
    converted = (
        (arguments[0], result)
        for arguments, result in calls.to(torch.Tensor.bfloat16, torch.Tensor.to, torch.Tensor.type)
        if result.dtype == torch.bfloat16 and arguments[0].dtype == torch.float32
    )
    by_torch = any(not torch.equal(given, result.float()) for given, result in converted)
    require(not by_torch, "the task is to round by the bits, and you let .bfloat16() do it")
    require(value.shape == x.shape, f"return the shape of x, {tuple(x.shape)}, not {tuple(value.shape)}")
    return value


def _require_close(value, x):
    require(
        not torch.equal(value, x),
        "you return x as it is: a bfloat16 has 7 bits of fraction, the others must go",
    )
    require(
        not torch.equal(value, x.half().float()),
        "that is float16: bfloat16 keeps the exponent of float32 and 7 bits of the fraction",
    )
    require(
        not torch.equal(value, x.view(torch.int32).float()),
        "you converted the integers to numbers: .view(torch.float32) keeps the bits, .float() does not",
    )
    require(
        torch.allclose(value, x, rtol=2**-6, atol=0),
        "some results are far from x: one step of bfloat16 is at most 1/128 of a number. Which 16 bits go?",
    )
    spare = value.view(torch.int32) & 0xFFFF
    require(not spare.any(), "the lower 16 bits of your results are not 0, so they are no bfloat16 numbers")


def _same(answer, x, message):
    value, right = _rounded(answer, x), x.bfloat16().float()
    if not torch.equal(value, right):
        i = (value != right).flatten().nonzero()[0].item()
        shown = [f"{t.flatten()[i].item():.9g}" for t in (x, value, right)]
        raise NotRight(f"{message}: {shown[0]} became {shown[1]}, torch gives {shown[2]}")


@exercise(
    "05c-scaler",
    "Find the scale of the loss while training",
    minutes=8,
    difficulty=2,
    hints=(
        "Three cases: an overflow; the good step that completes the interval; any other good step.",
        "This step counts: with growth_interval=5 and good_steps=4, a good step makes it 5.",
        "In two of the three cases the count starts again at 0.",
    ),
    wants="function",
    form=several(number, 2, "numbers", "the new scale, and the new number of good steps"),
)
def check_scaler(answer):
    """Follow the rule of torch.amp.GradScaler, step by step; name the usual slips."""

    def rule(scale, good, overflow, interval):
        grown = not overflow and good + 1 == interval
        return [scale / 2 if overflow else scale * (1 + grown), 0 if overflow or grown else good + 1]

    def slipped(**slip):
        """The rule with one entry replaced: `after`, an overflow; `full`, the last good step; `good`, any other."""

        def function(scale, good, overflow, interval):
            kind = "after" if overflow else "full" if good + 1 == interval else "good"
            return slip[kind](scale, good) if kind in slip else rule(scale, good, overflow, interval)

        return function

    slips = {
        "after an overflow the scale must fall: the same scale overflows again": (
            slipped(after=lambda s, n: [s, 0]),
            slipped(after=lambda s, n: [s, n]),
            slipped(after=lambda s, n: [s, n + 1]),
        ),
        "an overflow means that the scale is too LARGE: halve it": slipped(after=lambda s, n: [2 * s, 0]),
        "an overflow halves the scale: 1024 should become 512, not 256": slipped(
            after=lambda s, n: [s / 4, 0]
        ),
        "an overflow ends the row of good steps: the count should be 0": (
            slipped(after=lambda s, n: [s / 2, n]),
            slipped(after=lambda s, n: [s / 2, n + 1]),
        ),
        "an overflow is no good step: the count should be 0, not 1": slipped(after=lambda s, n: [s / 2, 1]),
        "you change the scale at each good step: only after growth_interval of them": (
            slipped(good=lambda s, n: [2 * s, n + 1], full=lambda s, n: [2 * s, n + 1]),
            slipped(good=lambda s, n: [2 * s, n + 1]),
            slipped(good=lambda s, n: [2 * s, 0]),
        ),
        "at the good step that completes growth_interval the scale is doubled, and yours stays. Count this step before "
        "you compare": (
            lambda s, n, overflow, interval: rule(s, n, overflow, interval + 1),
            slipped(full=lambda s, n: [s, 0]),
        ),
        "the growth is one step too early: the scale is doubled at the step that completes the interval": (
            lambda s, n, overflow, interval: rule(s, n, overflow, interval - 1)
        ),
        "after doubling, the row of good steps starts again: the count should be 0": (
            slipped(full=lambda s, n: [2 * s, n + 1])
        ),
        "the doubling step does not count for the next row: the count should be 0": slipped(
            full=lambda s, n: [2 * s, 1]
        ),
        "after one good step and another one the count is 2, not 1": slipped(good=lambda s, n: [s, n]),
        "the scale is doubled, not increased by another factor": (
            slipped(full=lambda s, n: [4 * s, 0]),
            slipped(full=lambda s, n: [1.5 * s, 0]),
            slipped(full=lambda s, n: [s + 2, 0]),
            slipped(full=lambda s, n: [s + 1, 0]),
        ),
    }
    cases = {
        f"for scale={s:g}, good_steps={n}, overflow={o}, growth_interval={interval} you return {{value}}, and it is "
        "{right}": (s, n, o, interval)
        for s, n, o, interval in (
            (1024.0, 3, True, 5),
            (1024.0, 1, False, 5),
            (1024.0, 4, False, 5),
            (256.0, 0, False, 5),
            (256.0, 2, False, 3),
            (512.0, 1, False, 3),
            (64.0, 0, False, 1),
            (64.0, 0, True, 1),
            (3.0, 6, False, 9),
        )
    }
    examine(answer, rule, cases, slips)
    scale, count, right = 256.0, 0, [256.0, 0]
    for step, overflow in enumerate([False] * 7 + [True, True] + [False] * 4 + [True] + [False] * 6, start=1):
        right = rule(*right, overflow, 3)
        scale, count = answer(scale, count, overflow, 3)
        told = f"over a longer run with growth_interval=3, at step {step} your scale is {scale:g}, torch's {right[0]:g}"
        require([scale, count] == right, told)
    return "the same scales as torch.amp.GradScaler, step by step."


@exercise(
    "05c-flops",
    "Count the operations of a block",
    minutes=6,
    difficulty=2,
    hints=(
        "A matrix costs 2 operations for each of its weights, for each token.",
        "Six matrices: queries, keys, values, output (each d_model x d_model), and the MLP's two.",
        "Attention itself: a dot product with each of context_length keys, d_model numbers long over all "
        "heads together, and a weighted sum of as many values. Each is 2 x context_length x d_model.",
    ),
    wants="function",
    form=number,
)
def check_flops(answer):
    """Compare with the formula; every usual slip gives other numbers."""

    def flops(matrix=2, attention=4, projections=4, mlp=2, factor=lambda T: 1):
        return lambda C, f, T: factor(T) * (matrix * (projections * C * C + mlp * C * f) + attention * T * C)

    right = flops()
    slips = {
        "each weight costs a multiplication AND an addition: 2 operations": flops(matrix=1, attention=2),
        "each weight of a matrix costs 2 operations too": flops(matrix=1),
        "attention itself is missing: each query meets context_length keys, and mixes as many values": flops(
            attention=0
        ),
        "attention itself costs 2 operations for each number too, or one of its two products is missing: scores and "
        "mixing": flops(attention=2),
        "attention itself costs 2 operations for each number of both products, scores and mixing": flops(
            attention=1
        ),
        "that is forward and backward: forward only is a third of it": flops(factor=lambda T: 3),
        "that is for the whole context: give the operations for ONE token": flops(factor=lambda T: T),
        "the output projection is missing: four matrices of d_model x d_model": flops(projections=3),
        "you count one matrix of the four of attention: queries, keys, values, output": flops(projections=1),
        "the four matrices of attention are missing: queries, keys, values, output": flops(projections=0),
        "the MLP has two matrices, up and down": flops(mlp=1),
        "that MLP has three matrices, as SwiGLU: here it has two": flops(mlp=3),
        "the MLP is missing": flops(mlp=0),
        "the MLP has d_ff hidden units, not 4 d_model": lambda C, f, T: right(C, 4 * C, T),
        "you count the causal half of attention: the task asks for the full context": (
            lambda C, f, T: right(C, f, T) - 4 * T * C + 2 * (T + 1) * C
        ),
        "that is attention for all pairs of tokens: ONE token is one query": lambda C, f, T: (
            right(C, f, T) + 4 * (T - 1) * T * C
        ),
    }
    cases = {
        "for d_model=48, d_ff=200, context_length=32 it is {right}; yours is {value}": (48, 200, 32),
        "right for one shape, but not for (128, 512, 64)": (128, 512, 64),
        "right for two shapes, but not for (16, 10, 1)": (16, 10, 1),
    }
    examine(answer, right, cases, slips, rtol=0, atol=0.1)
    return "the same as torch's counter; with backward it is three times that."
