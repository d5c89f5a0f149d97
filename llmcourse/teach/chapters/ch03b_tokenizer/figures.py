"""The figures of `03b_tokenizer`: how unequal words are, and what a larger vocabulary brings."""

import math

from llmcourse.teach import plots


def zipf(counts: list[int]) -> None:
    """Draw falling `counts` over their rank, and a line of slope -1 through the middle rank (by logarithms)."""
    middle = math.isqrt(len(counts))
    line = [middle * counts[middle - 1] / rank for rank in (1, len(counts))]
    axis = plots.lines(
        {"words": (range(1, len(counts) + 1), counts), "slope -1": ((1, len(counts)), line)},
        "rank of the word",
        "how often it occurs",
        "A few words are everywhere, most are rare",
    )
    axis.set(xscale="log", yscale="log")


def vocabulary(bytes_per_token: dict[int, float]) -> None:
    """Draw the bytes per token over the number of entries, on a scale of doublings."""
    sizes, values = list(bytes_per_token), list(bytes_per_token.values())
    axis = plots.lines(
        {"BPE": (sizes, values)},
        "entries of the vocabulary",
        "bytes per token",
        "Each doubling gains less",
        marker="o",
    )
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, sizes)
