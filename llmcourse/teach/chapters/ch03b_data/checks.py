"""Exercises of chapter 3b: data (`03b_data`)."""

from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import NotRight, exercise, require
from llmcourse.teach.forms import number, truth


@exercise(
    "03b-waste",
    "Count wasted positions",
    minutes=6,
    difficulty=2,
    hints=(
        "Every document takes a whole row of context_length positions.",
        "A document longer than the row is cut: it uses at most context_length positions.",
    ),
    wants="function",
    form=number,
)
def check_waste(answer):
    """Check the usual case, long documents, and the direction."""

    def used(lengths, n):
        return sum(min(x, n) for x in lengths)

    def right(lengths, n):
        return 1 - used(lengths, n) / (n * len(lengths))

    cases = {
        "documents of 50 and 100 tokens in rows of 100 waste 50 of 200 positions, 0.25; you say {value}": (
            [50, 100],
            100,
        ),
        "a document of 300 tokens in a row of 100 uses 100 positions, in one row: with another of 50 tokens the waste is "
        "0.25; you say {value}": ([300, 50], 100),
        "every row has 100 positions, however long the documents: 10, 30 and 20 waste 0.8; you say {value}": (
            [10, 30, 20],
            100,
        ),
        "documents of 9, 3, 64 and 41 tokens in rows of 47 waste {right}; you say {value}": (
            [9, 3, 64, 41],
            47,
        ),
    }
    slips = {
        "that is the share that is used; the waste is the rest": lambda x, n: 1 - right(x, n),
        "that is the number of wasted positions: divide by all": lambda x, n: n * len(x) - used(x, n),
        "give a share between 0 and 1: 0.25, not 25 percent": lambda x, n: 100 * right(x, n),
        "a document of 300 tokens in a row of 100 uses 100 positions, in one row: the rest of it is dropped": (
            lambda x, n: 1 - sum(x) / (n * len(x)),
            lambda x, n: 1 - sum(x) / n / sum(-(-y // n) for y in x),
        ),
        "every row has 100 positions, however long the documents: you pad to the longest one": (
            lambda x, n: right(x, min(n, max(x)))
        ),
        "divide by all positions, not by those that are used": lambda x, n: (n * len(x)) / used(x, n) - 1,
    }
    examine(answer, right, cases, slips)
    return "short documents are why real training packs."


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
    wants="function",
    form=number,
)
def check_jaccard(answer):
    """Hand-worked cases; catch the usual other measures."""

    def similarity(a, b, n):
        try:
            return answer(a, b, n)
        except ZeroDivisionError:
            raise NotRight(
                "a text with fewer than n words has no run in yours: count it as one run"
            ) from None

    def runs(text, n, of=tuple, missing=0):
        w = text.split()
        return {of(w[i : i + n]) for i in range(max(1, len(w) - n + 1 - missing))}

    def with_runs(measure, **options):
        return lambda a, b, n: measure(runs(a, n, **options), runs(b, n, **options))

    right = with_runs(lambda x, y: len(x & y) / len(x | y))
    cases = {
        "'a b c d e f' and 'a b c e x y z' share 2 of 9 runs of two: 0.222, not {value}": (
            "a b c d e f",
            "a b c e x y z",
            2,
        ),
        "'a b c' and 'c b a' share no run of two, and yours gives {value}": ("a b c", "c b a", 2),
        "a repeated run counts once: 'x y x y x y' and 'x y' give {right}, not {value}": (
            "x y x y x y",
            "x y",
            2,
        ),
        "a text with fewer than n words is one run: two equal short texts have similarity 1, not {value}": (
            "a b",
            "a b",
            5,
        ),
        "right for runs of two words, but not of three: {right}, and yours is {value}": (
            "the cat sat on it",
            "so the cat sat",
            3,
        ),
    }
    slips = {
        "that is the share of common WORDS: compare runs of n words": lambda a, b, n: right(a, b, 1),
        "you divide by the runs of one text: divide by all different runs of both": (
            with_runs(lambda x, y: len(x & y) / len(x)),
            with_runs(lambda x, y: len(x & y) / len(y)),
            with_runs(lambda x, y: len(x & y) / min(len(x), len(y))),
            with_runs(lambda x, y: len(x & y) / max(len(x), len(y))),
        ),
        "shared runs count once below the line: use the union, not the sum": (
            with_runs(lambda x, y: len(x & y) / (len(x) + len(y)))
        ),
        "that is the Dice coefficient: divide by the union": (
            with_runs(lambda x, y: 2 * len(x & y) / (len(x) + len(y)))
        ),
        "that is the number of shared runs: divide by all different runs": with_runs(lambda x, y: len(x & y)),
        "that is a distance, 1 minus the similarity": with_runs(lambda x, y: 1 - len(x & y) / len(x | y)),
        "the last run is missing: w words hold w - n + 1 runs": (
            with_runs(lambda x, y: len(x & y) / len(x | y), missing=1)
        ),
        "the order of the words in a run matters: use tuples, not sets or sorted runs": (
            with_runs(lambda x, y: len(x & y) / len(x | y), of=frozenset),
            with_runs(lambda x, y: len(x & y) / len(x | y), of=lambda run: tuple(sorted(run))),
        ),
        "that compares runs of letters: split the texts into words": (
            lambda a, b, n: right(" ".join(a), " ".join(b), n)
        ),
    }
    examine(similarity, right, cases, slips)
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
    wants="value",
    form=number,
)
def check_bands(answer):
    """16 bands of 8 at similarity 0.7."""
    right = 1 - (1 - 0.7**8) ** 16
    slips = {
        "that is the chance of ONE band: the pair has 16": 0.7**8,
        "that is the chance to MISS the pair: subtract it from 1": 1 - right,
        "16 bands of 8: the power of the similarity is 8, and that of the whole 16": 1 - (1 - 0.7**16) ** 8,
        "chances of bands do not add up: multiply the chances to miss": 16 * 0.7**8,
        "that is the chance that ALL bands agree: one is enough": (0.7**128, 0),
        "that is with 32 bands of 4, as in the text: here are 16 of 8": 1 - (1 - 0.7**4) ** 32,
    }
    require(not 1 < answer <= 100, "give a probability between 0 and 1, not a percentage")
    otherwise = "{value} is not the probability that at least one of 16 bands agrees"
    compare(answer, right, slips, otherwise, rtol=0, atol=5e-3)
    return "with 32 bands of 4 it is 0.9998: more and shorter bands find more, and compare more."


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
    wants="function",
    form=truth,
)
def check_luhn(answer):
    """Known numbers of 16, 15 and 13 digits; catch doubling from the wrong side."""

    def valid(text):
        try:
            return answer(text)
        except ValueError:
            raise NotRight("spaces and hyphens are not digits: keep the digits only") from None

    def luhn(double=lambda d: sum(divmod(2 * d, 10)), first=1, left=False, every=2):
        def function(text):
            digits = [int(x) for x in text if x.isdigit()][:: 1 if left else -1]
            return sum(double(d) if i % every == first % every else d for i, d in enumerate(digits)) % 10 == 0

        return function

    cases = {
        f"{number} is {'' if good else 'not '}valid, and yours says {'no' if good else 'it is'}": (number,)
        for number, good in {
            "4111 1111 1111 1111": True,
            "4111-1111-1111-1111": True,
            "6011 0009 9013 9424": True,
            "3782 822463 10005": True,
            "4222 2222 22222": True,
            "4111 1111 1111 1112": False,
            "4111 1111 1111 1121": False,
            "3782 822463 10006": False,
            "1411 1111 1111 1111": False,
            "5019 7170 1010 3743": False,
            "3662 5851 7812 8657": False,
        }.items()
    }
    slips = {
        "doubling from the LEFT hits the wrong digits when their number is odd. Start at the right end": (
            luhn(left=True, first=0)
        ),
        "the last digit, the first from the right, is not doubled: the one before it is": luhn(first=0),
        "a doubled digit above 9 is too large as it is: subtract 9, neither nothing nor 10": luhn(
            lambda d: 2 * d
        ),
        "6011 0009 9013 9424 is valid, and yours says no, since no digit is doubled: double every SECOND one from the right": luhn(
            lambda d: d
        ),
        "all digits are doubled: leave every second one as it is": luhn(every=1),
        "4111 1111 1111 1112 is not valid, and yours says it is, as of everything": lambda text: True,
        "4111 1111 1111 1111 is valid, and yours says no, as to everything": lambda text: False,
    }
    examine(valid, luhn(), cases, slips)
    return "one wrong digit is always noticed, and nearly every swap of neighbours."
