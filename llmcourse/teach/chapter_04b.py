"""Exercises of chapter 4b: many heads."""

import torch

from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import exercise, require


def split_heads(x, n_heads):
    """Reshape (B, T, C) to (B, H, T, D): head h gets columns h*D to (h+1)*D of every token."""
    B, T, C = x.shape
    return x.view(B, T, n_heads, C // n_heads).transpose(1, 2)


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
    solution=split_heads,
)
def check_split(answer):
    """Each head must hold a slice of the same token."""
    x = torch.arange(2.0 * 3 * 20).view(2, 3, 20)
    heads = tensor(answer(x.clone(), 4))
    require(heads.shape != (2, 3, 4, 5), "the shape is (B, T, H, D): swap T and H at the end")
    require(
        heads.shape == (2, 4, 3, 5),
        f"for x of (2, 3, 20) and 4 heads the shape is (2, 4, 3, 5); yours is {tuple(heads.shape)}",
    )
    require(
        not torch.equal(heads, x.view(2, 4, 3, 5)),
        "the shape is right, but a plain view mixes numbers of different tokens into one head: "
        "view as (B, T, H, D) first, then transpose",
    )
    require(
        not torch.equal(heads, x.view(2, 3, 5, 4).permute(0, 3, 1, 2)),
        "head h holds every 4th column; it should hold the columns h*D to (h+1)*D",
    )
    for h in range(4):
        wanted = x[:, :, 5 * h : 5 * h + 5]
        require(
            torch.equal(heads[:, h], wanted),
            f"head {h} is not the columns {5 * h} to {5 * h + 4} of every token",
        )
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
    solution=4 * 512 * 512,
)
def check_parameters(answer):
    """4 C^2."""
    C = 512
    require(answer != 3 * C * C, "you have queries, keys and values; the output projection is missing")
    require(answer != C * C, "that is one matrix; queries, keys, values and the output have one each")
    require(
        answer not in (8 * 4 * C * C, 8 * 3 * C * C), "the heads SHARE the width: each is only 512 / 8 wide"
    )
    require(answer not in (4 * C * 64, 3 * C * 64), "that is one head; there are 8 of them")
    require(answer != 4 * C * C + 4 * C, "you count the biases, too: this attention has none")
    require(answer == 4 * C * C, f"{answer} is not the number of entries of four 512 x 512 matrices")
    return "8 heads or 1: the number of parameters is the same."


def share_heads(keys, group):
    """Repeat each key head `group` times in a row: (B, n_kv, T, D) to (B, n_kv * group, T, D)."""
    return keys.repeat_interleave(group, dim=1)


@exercise(
    "04b-share",
    "Let query heads share keys",
    minutes=5,
    difficulty=2,
    hints=(
        "With 4 query heads and 2 key heads, query heads 0 and 1 use key head 0; 2 and 3 use key head 1.",
        "torch has repeat (0 1 0 1) and repeat_interleave (0 0 1 1).",
    ),
    solution=share_heads,
)
def check_share(answer):
    """Order and shape."""
    keys = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    shared = tensor(answer(keys.clone(), 3))
    require(
        shared.shape == (2, 6, 4, 5),
        f"2 key heads (2, 2, 4, 5), each for 3, give 6 heads, (2, 6, 4, 5); yours is {tuple(shared.shape)}",
    )
    require(
        not torch.equal(shared, keys.repeat(1, 3, 1, 1)),
        "the order is 0 1 0 1 0 1: neighbours should share, 0 0 0 1 1 1",
    )
    order = [0, 0, 0, 1, 1, 1]
    require(
        torch.equal(shared, keys[:, order]),
        "the shape is right, but the heads are not the key heads 0 0 0 1 1 1",
    )
    return "neighbouring query heads share one key head, as in Llama."


def kv_cache_bytes(n_layers, n_kv_heads, d_head, context_length, batch_size, bytes_per_number):
    """Bytes of keys and values of all layers."""
    return 2 * n_layers * n_kv_heads * d_head * context_length * batch_size * bytes_per_number


@exercise(
    "04b-cache",
    "How large is the cache?",
    minutes=5,
    difficulty=2,
    hints=(
        "In each layer, each position keeps one key and one value for each key head.",
        "A key has d_head numbers; so has a value: that is the factor 2.",
    ),
    solution=kv_cache_bytes,
)
def check_cache(answer):
    """Llama 3 8B and a small case."""
    names = ("n_layers", "n_kv_heads", "d_head", "context_length", "batch_size", "bytes_per_number")
    shape = (32, 8, 128, 8192, 1, 2)
    right = 2**30
    value = number(answer(*shape))
    require(value > 0, f"for Llama 3 8B's shape you get {value:,}; it is {right:,} bytes, 1 GiB")
    for place, name in enumerate(names):
        twice = number(answer(*shape[:place], 2 * shape[place], *shape[place + 1 :]))
        require(
            twice == 2 * value,
            f"twice the {name} needs twice the cache; with your function it grows {twice / value:.3g} times",
        )
    require(value != right // 2, "you count the keys OR the values; the cache holds both")
    require(value != right * 8, "that is in bits: bytes_per_number already says bytes")
    require(
        value != right * 2, "that is twice too much: keys and values are 2 numbers, and each is counted once"
    )
    require(value == right, f"for Llama 3 8B's shape you get {value:,}; it is {right:,} bytes, 1 GiB")
    return "Llama 3 8B keeps 1 GiB for each text of 8,192 tokens; with 32 key heads it would be 4."
