"""Exercises of chapter 5c, precision and speed."""

import torch

from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import NotRight, exercise, require


def to_bf16(x):
    """Round float32 numbers to the nearest bfloat16, half-way cases to even; return float32."""
    bits = x.view(torch.int32)
    last = (bits >> 16) & 1  # the last bit that stays
    return ((bits + 0x7FFF + last) & ~0xFFFF).view(torch.float32)


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
    solution=to_bf16,
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
    given = answer(x.clone())
    if isinstance(given, torch.Tensor) and not given.is_floating_point():
        raise NotRight("these are still integers: .view(torch.float32) reads the bits as numbers again")
    value = tensor(given)
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


def next_scale(scale, good_steps, overflow, growth_interval):
    """Return the new scale of the loss and the number of good steps in a row."""
    if overflow:
        return scale / 2, 0
    if good_steps + 1 == growth_interval:
        return scale * 2, 0
    return scale, good_steps + 1


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
    solution=next_scale,
)
def check_scaler(answer):
    """Follow the rule beside torch.amp.GradScaler; name the usual slips first."""
    scale, count = _pair(answer(1024.0, 3, True, 5))
    require(scale != 1024.0, "after an overflow the scale must fall: the same scale overflows again")
    require(scale != 2048.0, "an overflow means that the scale is too LARGE: halve it")
    require(scale == 512.0, f"an overflow halves the scale: 1024 should become 512, not {scale:g}")
    require(count == 0, f"an overflow ends the row of good steps: the count should be 0, not {count:g}")
    scale, count = _pair(answer(1024.0, 1, False, 5))
    require(scale == 1024.0, "you change the scale at each good step: only after growth_interval of them")
    require(count == 2, f"after one good step and another one the count is 2, not {count:g}")
    scale, count = _pair(answer(1024.0, 4, False, 5))
    require(
        scale == 2048.0,
        f"this is the fifth good step of five: the scale should become 2048, not {scale:g}. "
        "Count this step before you compare",
    )
    require(
        count == 0,
        f"after doubling, the row of good steps starts again: the count should be 0, not {count:g}",
    )
    overflows = [False] * 7 + [True, True] + [False] * 4 + [True] + [False] * 6
    for interval in (3, 1):
        scale, count = 256.0, 0
        for step, (overflow, right) in enumerate(
            zip(overflows, _torch_scales(overflows, interval), strict=True)
        ):
            scale, count = _pair(answer(scale, count, overflow, interval))
            require(
                scale == right,
                f"over a longer run with growth_interval={interval}, at step {step + 1} your scale is "
                f"{scale:g}, torch's {right:g}",
            )
    return "the same scales as torch.amp.GradScaler, step by step."


def _pair(given):
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise NotRight("return two numbers: the new scale, and the new number of good steps")
    return number(given[0]), number(given[1])


def _torch_scales(overflows, interval):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=interval)
    for overflow in overflows:
        scaler.scale(weight.sum() * (float("inf") if overflow else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        yield scaler.get_scale()


def block_flops(d_model, d_ff, context_length):
    """Return the operations of one block for one token, forward."""
    matrices = 2 * (4 * d_model * d_model + 2 * d_model * d_ff)
    attention = 2 * (2 * context_length * d_model)
    return matrices + attention


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
    solution=block_flops,
)
def check_flops(answer):
    """Compare with the formula, where every usual slip gives another number."""
    C, hidden, T = 48, 200, 32
    projections, mlp, attention = 2 * 4 * C * C, 2 * 2 * C * hidden, 2 * 2 * T * C
    right = projections + mlp + attention
    slips = {
        "each weight costs a multiplication AND an addition: 2 operations": right / 2,
        "attention itself is missing: each query meets context_length keys, and mixes as many values": (
            projections + mlp
        ),
        "attention itself costs 2 operations for each number too": projections + mlp + attention / 2,
        "that is forward and backward: forward only is a third of it": 3 * right,
        "that is for the whole context: give the operations for ONE token": T * right,
        "the output projection is missing: four matrices of d_model x d_model": right - 2 * C * C,
        "you count one matrix of the four of attention: queries, keys, values, output": right - 6 * C * C,
        "the MLP has two matrices, up and down": right - 2 * C * hidden,
        "that MLP has three matrices, as SwiGLU: here it has two": right + 2 * C * hidden,
        "you count the causal half of attention: the task asks for the full context": (
            projections + mlp + 2 * (T + 1) * C
        ),
        "the MLP is missing": projections + attention,
        "that is attention for all pairs of tokens: ONE token is one query": right + (T - 1) * attention,
    }
    value = number(answer(C, hidden, T))
    for message, slip in slips.items():
        require(abs(value - slip) > 0.5, message)
    require(
        value == right, f"for d_model=48, d_ff=200, context_length=32 it is {right:,}; yours is {value:,}"
    )
    for shape in ((128, 512, 64), (16, 10, 1)):
        c, f, t = shape
        expected = 8 * c * c + 4 * c * f + 4 * t * c
        require(number(answer(*shape)) == expected, f"right for one shape, but not for {shape}")
    return "the same as torch's counter; with backward it is three times that."
