"""Exercises of chapter 3b: data."""

from itertools import pairwise

import torch

from llmcourse.teach.checks import number, tensor
from llmcourse.teach.exercises import NotRight, exercise, require


def most_frequent_pair(words):
    """Count each pair of neighbours as often as its word occurs; a tie goes to the smaller pair."""
    counts = {}
    for symbols, count in words.items():
        for pair in pairwise(symbols):
            counts[pair] = counts.get(pair, 0) + count
    return min(counts, key=lambda pair: (-counts[pair], pair))


@exercise(
    "03b-pair",
    "Find the next merge",
    minutes=8,
    difficulty=1,
    hints=(
        "A word that occurs 5 times adds 5 to each of its pairs, not 1.",
        "itertools.pairwise(symbols) gives the neighbours. Keep the sums in a dictionary.",
        "min(counts, key=lambda pair: (-counts[pair], pair)) takes the largest count and, on a tie, "
        "the alphabetically smaller pair.",
    ),
    solution=most_frequent_pair,
)
def check_pair(answer):
    """Compare on cases that tell the usual mistakes apart."""

    def pair_of(words):
        pair = answer(words)
        right_kind = isinstance(pair, tuple | list) and [type(symbol) for symbol in pair] == [str, str]
        require(right_kind, f"return a pair of symbols such as ('x', 'y'), and only that; not {pair!r}")
        return tuple(pair)

    weighted = pair_of({("a", "b"): 1, ("a", "b", "c"): 1, ("x", "y"): 3})
    require(
        weighted != ("a", "b"),
        "for ab (once), abc (once), xy (3 times) you return a-b. It occurs twice, x-y three times: "
        "multiply by how often the word occurs",
    )
    require(
        weighted == ("x", "y"),
        f"for ab (once), abc (once), xy (3 times) you return {weighted}: x-y is frequent",
    )
    repeated = pair_of({("x", "x", "x", "x"): 1, ("b", "c"): 2})
    require(
        repeated == ("x", "x"),
        f"for xxxx (once), bc (twice) you return {repeated}. The word xxxx holds the pair x-x three "
        "times: count every position, not every different pair once",
    )
    longer = pair_of({("th", "e"): 2, ("t", "h"): 1, ("e",): 9})
    require(
        longer == ("th", "e"),
        f"for th-e (twice), t-h (once), e (9 times) you return {longer}: a symbol may be several letters",
    )
    tie = pair_of({("b", "a"): 1, ("a", "d"): 1, ("a", "c"): 1})
    require(
        tie == ("a", "c"), f"for ba, ad, ac (a tie) you return {tie}: take the alphabetically smaller, a-c"
    )
    return "counting pairs by word frequency is the only statistics that BPE needs."


@exercise(
    "03b-bytes",
    "Count the bytes of Chinese",
    minutes=2,
    difficulty=1,
    hints=(
        "A byte-level tokenizer sees text.encode('utf-8').",
        "ASCII letters are 1 byte each in UTF-8; most Chinese characters are 3.",
    ),
    solution=6,
)
def check_bytes(answer):
    """Six bytes."""
    require(answer != 2, "2 is the number of characters. How many bytes does each become in UTF-8?")
    require(answer != 3, "3 is the number of bytes of one of the two characters")
    require(answer != 4, "4 would be UTF-16. The tokenizer works on UTF-8: ask Python for the length")
    require(answer == 6, f"{answer} is not the length of '你好'.encode('utf-8')")
    return "without merges learned from Chinese text, two characters cost six tokens."


def inputs_and_targets(ids, length):
    """Cut `length` inputs and the token that follows each."""
    return ids[:length], ids[1 : length + 1]


@exercise(
    "03b-targets",
    "Shift the targets",
    minutes=5,
    difficulty=1,
    hints=(
        "The target of position i is token i + 1.",
        "You need length + 1 tokens to make `length` pairs.",
    ),
    solution=inputs_and_targets,
)
def check_targets(answer):
    """Check shift, direction and lengths."""
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    result = answer(ids.clone(), 4)
    require(isinstance(result, tuple | list) and len(result) == 2, "return two rows, as (inputs, targets)")
    inputs, targets = (tensor(part).int().tolist() for part in result)
    sized = isinstance(inputs, list) and isinstance(targets, list)
    require(sized, "return two rows: all inputs, then all targets")
    require(
        len(inputs) == 4 and len(targets) == 4,
        f"for length 4 you return {len(inputs)} inputs and {len(targets)} targets: both must be 4",
    )
    require(
        targets != inputs,
        "targets equal inputs: the model could copy its input and learn nothing. Shift by one",
    )
    require(
        inputs == [3, 1, 4, 1],
        f"the inputs should be the first 4 ids, 3 1 4 1; yours are {inputs}. The targets run ahead of them",
    )
    require(
        targets != [1, 4, 1, 3],
        "your last target is the first token again: it should be the id after the inputs",
    )
    require(
        targets == [1, 4, 1, 5],
        f"after 3 1 4 1 come 1 4 1 5; your targets are {targets}: take the token right after each input",
    )
    return "one row of text gives a prediction to learn from at every position."


def padding_waste(lengths, context_length):
    """Share of positions that hold padding when each document gets a row of its own."""
    used = sum(min(length, context_length) for length in lengths)
    return 1 - used / (len(lengths) * context_length)


@exercise(
    "03b-waste",
    "Count wasted positions",
    minutes=6,
    difficulty=2,
    hints=(
        "Every document takes a whole row of context_length positions.",
        "A document longer than the row is cut: it uses at most context_length positions.",
    ),
    solution=padding_waste,
)
def check_waste(answer):
    """Check the usual case, long documents, and the direction."""
    simple = number(answer([50, 100], 100))
    require(abs(simple - 0.75) > 1e-6, "0.75 is the share that is used; the waste is the rest")
    require(abs(simple - 50) > 1e-6, "50 is the number of wasted positions: divide by all 200")
    require(abs(simple - 25) > 1e-6, "give a share between 0 and 1: 0.25, not 25 percent")
    require(
        abs(simple - 0.25) < 1e-6,
        f"documents of 50 and 100 tokens in rows of 100 waste 50 of 200 positions, 0.25; you say {simple}",
    )
    cut = number(answer([300, 50], 100))
    require(
        abs(cut - 0.25) < 1e-6,
        f"a document of 300 tokens in a row of 100 uses 100 positions, in one row: with another of 50 tokens "
        f"the waste is 0.25; you say {cut}",
    )
    short = number(answer([10, 30, 20], 100))
    require(
        abs(short - 0.8) < 1e-6,
        f"every row has 100 positions, however long the documents: 10, 30 and 20 waste 0.8; you say {short}",
    )
    return "short documents are why real training packs."


def text_similarity(a, b, n):
    """Jaccard similarity of the sets of runs of `n` words."""
    sets = []
    for words in (a.split(), b.split()):
        sets.append({tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@exercise(
    "03b-jaccard",
    "Compare two texts by their shingles",
    minutes=6,
    difficulty=2,
    hints=(
        "w words hold w - n + 1 runs of n words; with fewer than n words, take the one run there is.",
        "Collect the runs of each text in a set of tuples: lists cannot stand in a set.",
        "Shared runs divided by all different runs: the sizes of `&` and of `|`.",
    ),
    solution=text_similarity,
)
def check_jaccard(answer):
    """Hand-worked cases; catch the usual other measures."""
    a, b = "a b c d e f", "a b c e x y z"
    value = number(answer(a, b, 2))
    slips = {
        "that is the share of common WORDS: compare runs of n words": (4 / 9,),
        "you divide by the runs of one text: divide by all different runs of both": (2 / 5, 2 / 6),
        "shared runs count once below the line: use the union, not the sum": (2 / 11,),
        "that is the Dice coefficient: divide by the union": (4 / 11,),
        "the last run is missing: w words hold w - n + 1 runs": (2 / 7,),
    }
    for message, values in slips.items():
        require(all(abs(value - slip) > 1e-6 for slip in values), message)
    require(abs(value - 2 / 9) < 1e-6, f"{a!r} and {b!r} share 2 of 9 runs of two: 0.222, not {value:.3f}")
    reverse = number(answer("a b c", "c b a", 2))
    require(reverse == 0, "the order of the words in a run matters: use tuples, not sets or sorted runs")
    repeated = number(answer("x y x y x y", "x y", 2))
    require(abs(repeated - 1 / 2) < 1e-6, "a repeated run counts once: make sets of runs")
    try:
        short = number(answer("a b", "a b", 5))
    except ZeroDivisionError:
        raise NotRight("a text with fewer than n words has no run in yours: count it as one run") from None
    require(
        abs(short - 1) < 1e-6,
        "a text with fewer than n words is one run: two equal short texts have similarity 1",
    )
    return "shared runs over all runs, the measure that MinHash estimates."


@exercise(
    "03b-bands",
    "How likely is a pair found",
    minutes=5,
    difficulty=2,
    hints=(
        "One band of r hash functions agrees with probability s to the power of r.",
        "The pair is missed when none of the bands agrees: multiply the chances of not agreeing.",
        "Found is 1 minus missed.",
    ),
    solution=round(1 - (1 - 0.7**8) ** 16, 4),
)
def check_bands(answer):
    """16 bands of 8 at similarity 0.7."""
    right = 1 - (1 - 0.7**8) ** 16
    slips = {
        "that is the chance of ONE band: the pair has 16": 0.7**8,
        "that is the chance to MISS the pair: subtract it from 1": 1 - right,
        "16 bands of 8: the power of the similarity is 8, and that of the whole 16": 1 - (1 - 0.7**16) ** 8,
        "chances of bands do not add up: multiply the chances to miss": 16 * 0.7**8,
    }
    for message, slip in slips.items():
        require(abs(answer - slip) > 2e-3, message)
    require(not 1 < answer <= 100, "give a probability between 0 and 1, not a percentage")
    require(
        abs(answer - right) < 5e-3, f"{answer} is not the probability that at least one of 16 bands agrees"
    )
    return "with 32 bands of 4 it is 0.9998: more and shorter bands find more, and compare more."


def card_number_is_valid(number):
    """The check sum of ISO/IEC 7812: double every second digit from the right."""
    digits = [int(character) for character in number if character.isdigit()][::-1]
    for place in range(1, len(digits), 2):
        doubled = 2 * digits[place]
        digits[place] = doubled - 9 if doubled > 9 else doubled
    return sum(digits) % 10 == 0


@exercise(
    "03b-luhn",
    "Check a card number",
    minutes=8,
    difficulty=2,
    hints=(
        "First keep the digits only: a card number may hold spaces and hyphens.",
        "Go through the reversed digits: the one at the right end is not doubled, the next is.",
        "9 doubled is 18, and 18 - 9 = 9.",
    ),
    solution=card_number_is_valid,
)
def check_luhn(answer):
    """Known numbers of 16 and 15 digits; catch doubling from the wrong side."""
    good, odd = "4111 1111 1111 1111", "3782 822463 10005"
    try:
        verdict = answer(good)
        hyphens = answer("4111-1111-1111-1111")
    except ValueError:
        raise NotRight("spaces and hyphens are not digits: keep the digits only") from None
    require(type(verdict) is bool, f"return True or False, not {verdict!r}")
    require(verdict and hyphens, f"{good} is valid, and yours says no")
    require(answer("6011 0009 9013 9424"), "6011 0009 9013 9424 is valid: subtract 9 from what exceeds 9")
    require(
        answer(odd), f"{odd} is valid: doubling from the LEFT hits the wrong ones. Start at the right end"
    )
    for wrong in ("4111 1111 1111 1112", "4111 1111 1111 1121", "3782 822463 10006"):
        require(not answer(wrong), f"{wrong} is not valid, and yours says it is")
    require(
        not answer("1411 1111 1111 1111"), "two neighbours swapped must be noticed: double every SECOND digit"
    )
    return "one wrong digit is always noticed, and nearly every swap of neighbours."
