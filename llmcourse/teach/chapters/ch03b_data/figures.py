"""The figures of `03b_data`: which pairs the lookup finds, and what each stage is worth."""

import numpy as np

from llmcourse.data.cleaning.dedup import candidate_probability
from llmcourse.teach import plots


def lookup(exact, found, bins) -> None:
    """Draw the share of pairs found over their similarity: the theory of 32 bands of 4, and a dot a bin.

    `exact` (N,) similarities, `found` (N,) true where the lookup has the pair, `bins` masks (N,).
    """
    s = np.linspace(0, 1, 101)
    axis = plots.lines(
        {"theory: 32 bands of 4": (s, candidate_probability(s, 32, 4))},
        "Jaccard similarity of a pair",
        "share of pairs found",
        "The lookup finds similar pairs and skips most others",
    )
    axis.plot([exact[b].mean() for b in bins], [found[b].mean() for b in bins], "o", color="black")


def seeds(results: dict) -> None:
    """Draw a row of dots for each stage of `results`: the bits per byte of each seed."""
    axis = plots.new_figure(width=6.0, height=2.2)[1]
    for row, values in enumerate(results.values()):
        axis.plot(values, [row] * len(values), "o", color="black")
    axis.set_yticks(range(len(results)), list(results))
    axis.invert_yaxis()
    axis.set(xlabel="bits per byte of unseen text (lower is better)", title="Three seeds of each stage")
