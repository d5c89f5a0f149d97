"""Solutions of `01_background`: a right answer to each exercise."""

import math
from collections import Counter
from itertools import pairwise


def add_one(text, previous, token, vocab_size):
    """Probability of `token` after `previous`, counted in the list `text`, with one added to each count."""
    pairs = list(pairwise(text))
    together = pairs.count((previous, token))
    after_previous = sum(first == previous for first, _ in pairs)
    return (together + 1) / (after_previous + vocab_size)


def cost_per_byte(probabilities, text):
    """Bits for one byte of `text`, whose tokens the model expected with `probabilities`."""
    return sum(-math.log2(p) for p in probabilities) / len(text.encode())


def upper_bound(ranks):
    """Entropy in bits of the shares of symbols that needed 1, 2, 3... guesses."""
    shares = [count / len(ranks) for count in Counter(ranks).values()]
    return sum(-share * math.log2(share) for share in shares)


SOLUTIONS = {
    "01-add-one": add_one,
    "01-bits": cost_per_byte,
    "01-bound": upper_bound,
    "01-compute": round(6 * 7e9 * 2e12 / (1000 * 4e14) / 86400, 3),
}
