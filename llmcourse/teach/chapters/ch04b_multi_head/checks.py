"""Exercises of chapter 4b: many heads."""

import math

import torch

from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


@exercise(
    "04b-split",
    "Split the width into heads",
    minutes=6,
    difficulty=1,
    hints=(
        "The width C is cut, the time T is not. First view C as (H, D).",
        "x.view(B, T, H, D) keeps each token's numbers together; then swap T and H.",
        "x.view(B, H, T, D) has the right shape and mixes tokens: the memory order is T before C.",
    ),
    wants="function",
    form=tensor,
)
def check_split(answer):
    """Each head must hold a slice of the same token."""
    cases = {
        "for x of (2, 3, 20) and 4 heads the numbers are not in place: head h is x[:, :, 5h : 5h + 5]": (
            torch.arange(2.0 * 3 * 20).view(2, 3, 20),
            4,
        ),
        "right for x of (2, 3, 20) and 4 heads, but not for (3, 4, 12) and 6": (
            torch.arange(3.0 * 4 * 12).view(3, 4, 12),
            6,
        ),
    }
    slips = {
        "the shape is (B, T, H, D): swap T and H at the end": lambda x, H: x.unflatten(-1, (H, -1)),
        "the shape is right, but a plain view mixes numbers of different tokens into one head: "
        "view as (B, T, H, D) first, then transpose": lambda x, H: x.reshape(len(x), H, x.shape[1], -1),
        "head h holds every H-th column, such as every 4th column of 20; it should hold the columns h*D to (h+1)*D": (
            lambda x, H: x.unflatten(-1, (-1, H)).permute(0, 3, 1, 2)
        ),
        "the heads stand in reverse: head 0 is not the last columns": lambda x, H: torch.stack(
            x.chunk(H, -1)[::-1], 1
        ),
        "the heads are one dimension too far in front: the batch comes first, (B, H, T, D)": (
            lambda x, H: torch.stack(x.chunk(H, -1))
        ),
        "time and head width are exchanged: the shape is (B, H, T, D)": (
            lambda x, H: x.unflatten(-1, (H, -1)).permute(0, 2, 3, 1)
        ),
        "n_heads is the number of heads, not their width": lambda x, H: x.unflatten(-1, (-1, H)).transpose(
            1, 2
        ),
    }

    def look(heads, x, n_heads):
        width = x.shape[-1] // n_heads
        wrong = [
            h for h in range(n_heads) if not torch.equal(heads[:, h], x[..., h * width : (h + 1) * width])
        ]
        return f"head {wrong[0]} is not the columns {wrong[0] * width} to {(wrong[0] + 1) * width - 1} of every token"

    def right(x, n_heads):
        return torch.stack(x.chunk(n_heads, dim=-1), dim=1)

    examine(answer, right, cases, slips, "(B, H, T, D)", look)
    return "no number is computed: many heads cost one reshape."


@exercise(
    "04b-parameters",
    "Count the parameters",
    minutes=3,
    difficulty=1,
    hints=(
        "There are four matrices: for queries, keys, values, and the output.",
        "Each maps 512 numbers to 512 numbers; the number of heads only says how they are sliced.",
    ),
    wants="value",
    form=number,
)
def check_parameters(answer):
    """4 C^2."""
    C = 512
    slips = {
        "you have queries, keys and values; the output projection is missing": 3 * C * C,
        "that is one matrix; queries, keys, values and the output have one each": C * C,
        "the heads SHARE the width: each is only 512 / 8 wide": (
            8 * 4 * C * C,
            8 * 3 * C * C,
            (8 * 3 + 1) * C * C,
        ),
        "that is one head of 512 x 64 (there are 8 of them), or 8 heads of 64 x 64 (each maps all 512 numbers)": (
            4 * C * 64,
            3 * C * 64,
        ),
        "you count the biases, too: this attention has none": 4 * C * C + 4 * C,
        "each matrix has a row for EACH of 512 numbers: multiply 512 by 512": (4 * C, 3 * C),
    }
    compare(
        answer, 4 * C * C, slips, "{value} is not the number of entries of four 512 x 512 matrices", rtol=0
    )
    return "8 heads or 1: the number of parameters is the same."


@exercise(
    "04b-share",
    "Let query heads share keys",
    minutes=5,
    difficulty=2,
    hints=(
        "With 4 query heads and 2 key heads, query heads 0 and 1 use key head 0; 2 and 3 use key head 1.",
        "torch has repeat (0 1 0 1) and repeat_interleave (0 0 1 1).",
    ),
    wants="function",
    form=tensor,
)
def check_share(answer):
    """Order and shape."""
    generator = torch.Generator().manual_seed(0)
    cases = {
        "the shape is right, but the heads are not the key heads 0 0 0 1 1 1": (
            torch.randn(2, 2, 4, 5, generator=generator),
            3,
        ),
        "right for 2 key heads in groups of 3, but not for 3 in groups of 2": (
            torch.randn(1, 3, 2, 4, generator=generator),
            2,
        ),
    }
    slips = {
        "the order is 0 1 0 1 0 1: neighbours should share, 0 0 0 1 1 1": lambda keys, g: keys.repeat(
            1, g, 1, 1
        ),
        "you repeat the batch (dim 0): repeat the heads, which are dimension 1": (
            lambda keys, g: keys.repeat_interleave(g, dim=0)
        ),
        "you repeat the positions (dim 2): repeat the heads, which are dimension 1": (
            lambda keys, g: keys.repeat_interleave(g, dim=2)
        ),
        "you repeat the numbers (dim 3): repeat the heads, which are dimension 1": (
            lambda keys, g: keys.repeat_interleave(g, dim=3)
        ),
        "the copies are in a dimension of their own: join it with the heads, flatten(1, 2)": (
            lambda keys, g: torch.stack([keys] * g, dim=2),
            lambda keys, g: torch.stack([keys] * g, dim=1),
        ),
        "all query heads use one key head, and that is not the key heads 0 0 0 1 1 1": (
            lambda keys, g: keys[:, :1].expand(-1, keys.shape[1] * g, -1, -1),
            lambda keys, g: keys[:, -1:].expand(-1, keys.shape[1] * g, -1, -1),
        ),
        "nothing is repeated: each key head serves `group` query heads": lambda keys, g: keys,
    }
    told = "(B, n_kv · group, T, D)"
    examine(answer, lambda keys, g: keys.repeat_interleave(g, dim=1), cases, slips, told)
    return "neighbouring query heads share one key head, as in Llama."


@exercise(
    "04b-cache",
    "How large is the cache?",
    minutes=5,
    difficulty=2,
    hints=(
        "In each layer, each position keeps one key and one value for each key head.",
        "A key has d_head numbers; so has a value: that is the factor 2.",
    ),
    wants="function",
    form=number,
)
def check_cache(answer):
    """Llama 3 8B and small cases; a number that is left out, squared or fixed is named."""
    llama = (32, 8, 128, 8192, 1, 2)
    names = ("n_layers", "n_kv_heads", "d_head", "context_length", "batch_size", "bytes_per_number")

    def power(place, exponent, factor=2):
        return lambda *parts: factor * math.prod(parts) * parts[place] ** (exponent - 1)

    slips = {
        "you count the keys OR the values; the cache holds both": lambda *parts: math.prod(parts),
        "that is in bits: bytes_per_number already says bytes": lambda *parts: 16 * math.prod(parts),
        "that is twice too much: keys and values are 2 numbers, and each is counted once": (
            lambda *parts: 4 * math.prod(parts)
        ),
        "you add: twice the n_layers should give twice the cache, so each number multiplies it": (
            lambda *parts: 2 * sum(parts),
            lambda *parts: sum(parts),
        ),
        "give bytes, 1,073,741,824 bytes for Llama 3 8B, not GiB, MiB or KiB": tuple(
            lambda *parts, unit=unit: 2 * math.prod(parts) / unit
            for unit in (2**30, 2**20, 2**10, 1e9, 1e6, 1e3)
        ),
        "all of the context_length positions are kept, the last one too": (
            lambda n, h, d, T, B, size: 2 * n * h * d * (T - 1) * B * size
        ),
        "the cache grows with the context_length, not with its square: yours grows 4 times when it doubles": power(
            3, 2
        ),
    }
    for place, name in enumerate(names):
        slips[f"twice the {name} needs twice the cache, and yours does not depend on it"] = tuple(
            power(place, 0, factor) for factor in (1, 2, 2 * llama[place])
        )
    cases = {
        "for Llama 3 8B's shape you get {value}; it is {right} bytes, 1 GiB": llama,
        "right for Llama 3 8B, but for (3, 5, 7, 11, 13, 4) you get {value}; it is {right}": (
            3,
            5,
            7,
            11,
            13,
            4,
        ),
        "right for two shapes, but for (1, 1, 2, 3, 1, 1) you get {value}; it is {right}": (1, 1, 2, 3, 1, 1),
    }
    examine(answer, lambda *parts: 2 * math.prod(parts), cases, slips, rtol=0, atol=0.1)
    return "Llama 3 8B keeps 1 GiB for each text of 8,192 tokens; with 32 key heads it would be 4."
