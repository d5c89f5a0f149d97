"""Exercises of chapter 1: background."""

import math
from collections import Counter
from itertools import pairwise

from llmcourse.teach.chapters.ch01_background.entropy import entropy_bounds
from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number


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
    wants="function",
    form=number,
)
def check_add_one(answer):
    """Hand-counted values; the sum over the vocabulary; the end of the text; an unseen history."""
    text, V = [2, 0, 1, 0, 2, 0, 1, 3, 0, 1, 4, 0], 7  # 0 begins four of eleven pairs, and ends the text
    words = ["to", "be", "or", "not", "to", "be"]

    def pairs(t, *pair):
        return sum((a, b) == pair for a, b in pairwise(t))

    def before(t, token):
        return sum(a == token for a, _ in pairwise(t))

    cases = {
        f"P(1 after 0) in {text} with 7 tokens is 4/11; yours is {{value}}": (text, 0, 1, V),
        "a pair that was never seen gets 1/11 here; yours {value}": (text, 0, 4, V),
        "after a token that was never seen all 7 are alike, 1/7; yours gives {value}": (text, 5, 2, V),
        "P(0 after 1) in the same text is {right}; yours is {value}": (text, 1, 0, 9),
        "right for numbers, but not for a list of words: {right}, and yours is {value}": (
            words,
            "to",
            "be",
            10,
        ),
    }
    slips = {
        "nothing is added: an unseen pair would get probability 0": (
            lambda t, p, w, V: pairs(t, p, w) / max(1, before(t, p))
        ),
        "one is added to the pair only: the denominator grows too, by one for each possible token": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / before(t, p)
        ),
        "the denominator grows by 1 instead of by vocab_size": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (before(t, p) + 1)
        ),
        "the last token of the text has no successor: count pairs, not tokens": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (t.count(p) + V)
        ),
        "you count the pair the other way round: first previous, then token": (
            lambda t, p, w, V: (pairs(t, w, p) + 1) / (before(t, p) + V)
        ),
        "you have exchanged previous and token: previous comes first": (
            lambda t, p, w, V: (pairs(t, w, p) + 1) / (before(t, w) + V)
        ),
        "that is a share of ALL pairs: divide by those that begin with previous": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (len(t) - 1 + V)
        ),
        "that is the probability of the pair: divide by the pairs that begin with previous": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (len(t) - 1 + V**2)
        ),
        "that is a share of all pairs, and nothing is added": (
            lambda t, p, w, V: pairs(t, p, w) / (len(t) - 1)
        ),
        "use the given vocab_size: tokens that do not occur in this text are possible too": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (before(t, p) + len(set(t)))
        ),
        "you divide by how often `token` comes: what is given is `previous`": (
            lambda t, p, w, V: (pairs(t, p, w) + 1) / (sum(b == w for _, b in pairwise(t)) + V)
        ),
    }
    examine(answer, lambda t, p, w, V: (pairs(t, p, w) + 1) / (before(t, p) + V), cases, slips)
    return "no pair has probability 0, and each history's probabilities sum to 1."


@exercise(
    "01-bits",
    "From probabilities to bits per byte",
    minutes=5,
    difficulty=1,
    hints=(
        "A token of probability p costs -log2 p bits; add up the costs of all tokens.",
        "Divide by bytes, not by characters: a Chinese character has three. str.encode() gives the bytes.",
    ),
    wants="function",
    form=number,
)
def check_bits(answer):
    """Powers of two, so that all bits are whole; then texts whose bytes are not characters."""
    cases = {
        "8 bits for the 8 bytes of 'to be or' are 1 bit per byte; yours is {value}": (
            [0.5, 0.25, 0.125, 0.25],
            "to be or",
        ),
        "18 bits for '你好', 6 bytes, are 3 bits per byte; yours is {value}": ([2**-9, 2**-9], "你好"),
        "for the probabilities 0.3, 0.06, 0.9 and 'naïve' it is {right} bits per byte; yours is {value}": (
            [0.3, 0.06, 0.9],
            "naïve",
        ),
    }

    def size(text):
        return len(text.encode())

    def bits(p):
        return sum(-math.log2(x) for x in p)

    slips = {
        "the sign is wrong: a probability below 1 costs a positive number of bits": (
            lambda p, t: -bits(p) / size(t)
        ),
        "that is nats per byte: use the logarithm to base 2": lambda p, t: bits(p) * math.log(2) / size(t),
        "that is with the logarithm to base 10: use base 2": lambda p, t: bits(p) * math.log10(2) / size(t),
        "that is bits per TOKEN: divide the sum by the bytes of the text": lambda p, t: bits(p) / len(p),
        "that is the sum: divide it by the bytes of the text": lambda p, t: bits(p),
        "that is minus the sum: turn the sign, and divide by the bytes of the text": lambda p, t: -bits(p),
        "you take the mean over tokens and then divide by bytes: it is the SUM over tokens": (
            lambda p, t: bits(p) / len(p) / size(t)
        ),
        "you take the logarithm of the mean probability: take the logarithm of each, then add up": (
            lambda p, t: -math.log2(sum(p) / len(p)) * len(p) / size(t)
        ),
        "'你好' has 2 characters but 6 bytes: divide by len(text.encode())": lambda p, t: bits(p) / len(t),
        "that is a perplexity: the bits are its exponent": lambda p, t: 2 ** (bits(p) / size(t)),
        "you divide by the number of words: divide by the bytes": lambda p, t: bits(p) / len(t.split()),
    }
    examine(answer, lambda p, t: bits(p) / size(t), cases, slips)
    return "a Chinese character that costs 9 bits costs 3 bits per byte."


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
    wants="function",
    form=number,
)
def check_bound(answer):
    """Closed forms, and the function of the package."""

    def shares(ranks):
        return [count / len(ranks) for count in Counter(ranks).values()]

    cases = {
        "the shares 1/2, 1/4, 1/8, 1/8 give 1.75 bits; yours is {value}": ([1, 1, 1, 1, 2, 2, 3, 9],),
        "who always hits at once needs 0 bits; yours says {value}": ([1] * 5,),
        "for [3, 1, 4, 1, 5, 9, 2, 6] it is {right} bits; you return {value}": ([3, 1, 4, 1, 5, 9, 2, 6],),
        "for [1, 1, 2] it is {right} bits; you return {value}": ([1, 1, 2],),
        "a single guess number, [7], has 0 bits; you return {value}": ([7],),
    }
    slips = {
        "the sign is wrong: -log2 of a share is positive": lambda r: sum(q * math.log2(q) for q in shares(r)),
        "that is in nats: use the logarithm to base 2": lambda r: sum(-q * math.log(q) for q in shares(r)),
        "that is the mean of log2 of the guesses: the bound needs only HOW OFTEN each number came": (
            lambda r: sum(map(math.log2, r)) / len(r)
        ),
        "that is log2 of the mean number of guesses: take the entropy of the shares": (
            lambda r: math.log2(sum(r) / len(r))
        ),
        "that is the mean number of guesses: take the entropy of the shares": lambda r: sum(r) / len(r),
        "you sum over the symbols: sum over the DIFFERENT numbers of guesses": (
            lambda r: sum(-(q := r.count(x) / len(r)) * math.log2(q) for x in r)
        ),
        "each -log2 q must be weighted by its q": lambda r: sum(-math.log2(q) for q in shares(r)),
        "that is the LOWER bound; the upper one is the entropy of the shares": lambda r: entropy_bounds(r)[0],
        "you left the counts as they are: divide them by the number of symbols": (
            lambda r: -sum(n * math.log2(n) for n in Counter(r).values())
        ),
        "that is log2 of how many different numbers there are: they are not equally frequent": (
            lambda r: math.log2(len(set(r)))
        ),
        "that is in bits for the whole text: weight each -log2 q by its share, not by its count": (
            lambda r: sum(-n * math.log2(n / len(r)) for n in Counter(r).values())
        ),
        "that is a perplexity, 2 to the power of the bound": lambda r: 2 ** entropy_bounds(r)[1],
    }
    examine(answer, lambda r: sum(-q * math.log2(q) for q in shares(r)), cases, slips)
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
    wants="value",
    form=number,
)
def check_compute(answer):
    """7e9 parameters, 2e12 tokens, 1000 GPUs of 4e14 useful operations a second."""
    slips = {
        "that is in seconds: a day has 86,400": DAYS * 86400,
        "that is in minutes: a day has 1,440": DAYS * 1440,
        "that is in hours: a day has 24": DAYS * 24,
        "each token costs 6 operations per parameter, not 1": DAYS / 6,
        "2 operations per parameter are the forward pass alone; the backward pass takes 4 more": DAYS / 3,
        "4 operations per parameter are the backward pass alone; the forward pass takes 2 more": DAYS * 2 / 3,
        "that is for one GPU: there are 1,000": DAYS * 1000,
        "the sign is wrong": -DAYS,
        "that is a speed: turn the fraction over, work divided by speed": 1 / DAYS,
    }
    otherwise = "{value} days is not 6ND divided by the speed of all GPUs"
    compare(answer, DAYS, slips, otherwise, rtol=0.015, atol=0)  # one decimal: 2.4
    return "8.4e22 operations at 4e17 a second."
