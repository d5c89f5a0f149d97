"""Exercises of chapter 1: background."""

import math
from collections import Counter
from itertools import pairwise

from llmcourse.teach.checks import number
from llmcourse.teach.entropy import entropy_bounds
from llmcourse.teach.exercises import exercise, require


def add_one(text, previous, token, vocab_size):
    """Probability of `token` after `previous`, counted in the list `text`, with one added to each count."""
    pairs = list(pairwise(text))
    together = pairs.count((previous, token))
    after_previous = sum(first == previous for first, _ in pairs)
    return (together + 1) / (after_previous + vocab_size)


@exercise(
    "01-add-one",
    "Smooth by adding one",
    minutes=8,
    difficulty=2,
    hints=(
        "zip(text, text[1:]), or itertools.pairwise, gives all pairs of neighbours.",
        "Count the pair (previous, token), and count all pairs that begin with previous.",
        "One is added for each of vocab_size possible tokens: so the denominator grows by vocab_size.",
    ),
    solution=add_one,
)
def check_add_one(answer):
    """Hand-counted values; the sum over the vocabulary; the end of the text; an unseen history."""
    text, V = [2, 0, 1, 0, 2, 0, 1, 3, 0, 1, 4, 0], 7  # 0 begins four of eleven pairs, and ends the text
    value = number(answer(list(text), 0, 1, V))
    slips = {
        "nothing is added: an unseen pair would get probability 0": 3 / 4,
        "one is added to the pair only: the denominator grows too, by one for each possible token": 4 / 4,
        "the denominator grows by 1 instead of by vocab_size": 4 / 5,
        "the last token of the text has no successor: count pairs, not tokens": 4 / 12,
        "you count the pair the other way round: first previous, then token": 2 / 11,
        "you have exchanged previous and token: previous comes first": 2 / 10,
        "that is a share of ALL pairs: divide by those that begin with previous": 4 / 18,
        "that is the probability of the pair: divide by the pairs that begin with previous": 4 / 60,
        "that is a share of all pairs, and nothing is added": 3 / 11,
        "use the given vocab_size: tokens that do not occur in this text are possible too": 4 / 9,
        "you divide by how often `token` comes: what is given is `previous`": 4 / 10,
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-6, message)
    require(abs(value - 4 / 11) < 1e-6, f"P(1 after 0) in {text} with 7 tokens is 4/11; yours is {value:.4f}")
    unseen = number(answer(list(text), 0, 4, V))
    require(abs(unseen - 1 / 11) < 1e-6, f"a pair that was never seen gets 1/11 here; yours {unseen:.4f}")
    total = sum(number(answer(list(text), 0, token, V)) for token in range(V))
    require(abs(total - 1) < 1e-6, f"the probabilities after 0 must sum to 1; yours sum to {total:.3f}")
    after_new = number(answer(list(text), 5, 2, V))
    require(
        abs(after_new - 1 / V) < 1e-6,
        f"after a token that was never seen all {V} are alike, 1/{V}; yours gives {after_new:.3f}",
    )
    words = ["to", "be", "or", "not", "to", "be"]
    value = number(answer(words, "to", "be", 10))
    require(abs(value - 3 / 12) < 1e-6, "right for numbers, but not for a list of words")
    return "no pair has probability 0, and each history's probabilities sum to 1."


def cost_per_byte(probabilities, text):
    """Bits for one byte of `text`, whose tokens the model expected with `probabilities`."""
    return sum(-math.log2(p) for p in probabilities) / len(text.encode())


@exercise(
    "01-bits",
    "From probabilities to bits per byte",
    minutes=5,
    difficulty=1,
    hints=(
        "A token of probability p costs -log2 p bits; add up the costs of all tokens.",
        "Divide by bytes, not by characters: a Chinese character has three. str.encode() gives the bytes.",
    ),
    solution=cost_per_byte,
)
def check_bits(answer):
    """Powers of two, so that all bits are whole; then a Chinese text, where bytes are not characters."""
    p, text = [0.5, 0.25, 0.125, 0.25], "to be or"  # 8 bits, 8 bytes, 4 tokens
    value = number(answer(list(p), text))
    slips = {
        "the sign is wrong: a probability below 1 costs a positive number of bits": -1.0,
        "that is nats per byte: use the logarithm to base 2": math.log(2),
        "that is with the logarithm to base 10: use base 2": math.log10(2),
        "that is bits per TOKEN: divide the sum by the bytes of the text": 2.0,
        "that is the sum: divide it by the bytes of the text": 8.0,
        "that is minus the sum: turn the sign, and divide by the bytes of the text": -8.0,
        "you take the mean over tokens and then divide by bytes: it is the SUM over tokens": 0.25,
        "you take the logarithm of the mean probability: take the logarithm of each, then add up": (
            -math.log2(sum(p) / 4) * 4 / 8
        ),
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-6, message)
    require(abs(value - 1) < 1e-6, f"8 bits for the 8 bytes of {text!r} are 1 bit per byte; yours is {value}")
    chinese = number(answer([2**-9, 2**-9], "你好"))
    require(abs(chinese - 9) > 1e-6, "'你好' has 2 characters but 6 bytes: divide by len(text.encode())")
    require(abs(chinese - 3) < 1e-6, f"18 bits for '你好', 6 bytes, are 3 bits per byte; yours is {chinese}")
    return "a Chinese character that costs 9 bits costs 3 bits per byte."


def upper_bound(ranks):
    """Entropy in bits of the shares of symbols that needed 1, 2, 3... guesses."""
    shares = [count / len(ranks) for count in Counter(ranks).values()]
    return sum(-share * math.log2(share) for share in shares)


@exercise(
    "01-bound",
    "Bound the entropy by guesses",
    minutes=8,
    difficulty=2,
    hints=(
        "collections.Counter(ranks) says how many symbols needed 1 guess, 2 guesses, and so on.",
        "Divide each count by the number of symbols: these are the shares q.",
        "The bound is the sum of -q log2 q over the different numbers of guesses.",
    ),
    solution=upper_bound,
)
def check_bound(answer):
    """Closed forms, and the function of the package."""
    ranks = [1, 1, 1, 1, 2, 2, 3, 9]  # shares 1/2, 1/4, 1/8, 1/8: 1.75 bits
    value = number(answer(list(ranks)))
    slips = {
        "the sign is wrong: -log2 of a share is positive": -1.75,
        "that is in nats: use the logarithm to base 2": 1.75 * math.log(2),
        "that is the mean of log2 of the guesses: the bound needs only HOW OFTEN each number came": (
            sum(math.log2(r) for r in ranks) / 8
        ),
        "that is log2 of the mean number of guesses: take the entropy of the shares": math.log2(
            sum(ranks) / 8
        ),
        "that is the mean number of guesses: take the entropy of the shares": sum(ranks) / 8,
        "you sum over the symbols: sum over the DIFFERENT numbers of guesses": (
            sum({1: 0.5, 2: 0.5, 3: 0.375, 9: 0.375}[r] for r in ranks)
        ),
        "each -log2 q must be weighted by its q": 1 + 2 + 3 + 3,
        "that is the LOWER bound; the upper one is the entropy of the shares": entropy_bounds(ranks)[0],
        "you left the counts as they are: divide them by the number of symbols": -(4 * 2 + 2 * 1),
        "that is log2 of how many different numbers there are: they are not equally frequent": 2.0,
    }
    for message, slip in slips.items():
        require(abs(value - slip) > 1e-6, message)
    require(abs(value - 1.75) < 1e-6, f"the shares 1/2, 1/4, 1/8, 1/8 give 1.75 bits; yours is {value}")
    require(abs(number(answer([1] * 5))) < 1e-6, "who always hits at once needs 0 bits; yours says otherwise")
    for other in ([3, 1, 4, 1, 5, 9, 2, 6], [1, 1, 2], [7]):
        expected = entropy_bounds(other)[1]
        given = number(answer(list(other)))
        require(abs(given - expected) < 1e-6, f"for {other} you give {given:.4f}, expected {expected:.4f}")
    return "who guesses well needs few bits: the numbers of guesses are the text in another writing."


DAYS = 6 * 7e9 * 2e12 / (1000 * 4e14) / 86400


@exercise(
    "01-compute",
    "Days of training",
    minutes=5,
    difficulty=1,
    hints=(
        "Work: 6 operations for each parameter and each token.",
        "Speed: the number of GPUs times the operations that one of them really does in a second.",
        "Work divided by speed is in seconds; a day has 86,400 of them.",
    ),
    solution=round(DAYS, 3),
)
def check_compute(answer):
    """7e9 parameters, 2e12 tokens, 1000 GPUs of 4e14 useful operations a second."""
    slips = {
        "that is in seconds: a day has 86,400": DAYS * 86400,
        "that is in hours: a day has 24": DAYS * 24,
        "each token costs 6 operations per parameter, not 1": DAYS / 6,
        "2 operations per parameter are the forward pass alone; the backward pass takes 4 more": DAYS / 3,
        "that is for one GPU: there are 1,000": DAYS * 1000,
    }
    for message, slip in slips.items():
        require(abs(answer / slip - 1) > 0.02, message)
    require(abs(answer / DAYS - 1) < 0.02, f"{answer:g} days is not 6ND divided by the speed of all GPUs")
    return "8.4e22 operations at 4e17 a second."
