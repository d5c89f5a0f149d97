"""Exercises of `03e_evaluation`: choices by likelihood."""

import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import tensor


@exercise(
    "03e-choice",
    "Choose by likelihood per token",
    minutes=5,
    difficulty=1,
    hints=(
        "Log-likelihoods are negative: the best is the one nearest to 0, the largest.",
        "Divide element by element, then argmax over the options, which are the last dimension.",
    ),
    wants="function",
    form=tensor,
)
def check_choose(answer):
    """Compare on random items; tell the sum, the wrong sign and the wrong dimension apart."""
    generator = torch.Generator().manual_seed(3)

    def items(n, k):
        lengths = torch.randint(2, 15, (n, k), generator=generator)
        return -(lengths * (0.02 + torch.rand(n, k, generator=generator) * 0.6)).float(), lengths

    slips = {
        "these are the scores of all options: return the index of the best, (N,)": lambda s, n: s / n,
        "these are the scores of the best options: return their index, by argmax": lambda s, n: (s / n).amax(
            -1
        ),
        "log-likelihoods are negative: the LARGEST is the best": lambda s, n: (s / n).argmin(-1),
        "you divide the likelihood itself: divide its LOGARITHM, the sum over the tokens": (
            lambda s, n: (s.exp() / n).argmax(-1)
        ),
        "the lengths have no effect: divide by them, option by option": lambda s, n: s.argmax(-1),
        "you multiply by the lengths: that punishes long options twice. Divide": lambda s, n: (s * n).argmax(
            -1
        ),
        "you divide by the root of the length: per token is by the length itself": lambda s, n: (
            s / n**0.5
        ).argmax(-1),
        "you choose by the length alone: log-likelihood divided by length": (
            lambda s, n: n.argmax(-1),
            lambda s, n: n.argmin(-1),
        ),
        "places count from 0: yours are one too large": lambda s, n: (s / n).argmax(-1) + 1,
        "that is one choice for each option: The options are the last dimension": lambda s, n: (s / n).argmax(
            0
        ),
    }
    cases = {
        "some of 40 items are chosen otherwise than by log-likelihood / length": items(40, 4),
        "right for 4 options, but not for 9 items of 3": items(9, 3),
    }
    examine(answer, lambda s, n: (s / n).argmax(-1), cases, slips, "(N,), one index for each item")
    return "evaluation programs call it normalized accuracy (some divide by bytes instead of tokens)."
