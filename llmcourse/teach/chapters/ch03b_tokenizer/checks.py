"""Exercises of chapter 3b: tokens (`03b_tokenizer`)."""

from itertools import chain, pairwise

import torch

from llmcourse.teach.examine import compare, examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import items, number, several, shown, tensor


def pair_of_symbols(value) -> list[str]:
    """Return a pair of texts as a list; raises NotRight for anything else."""
    such = "a pair of symbols such as ('x', 'y'), and only that"
    pair = items(value, 2, "symbols", such)
    require(all(isinstance(x, str) for x in pair), f"return {such}; not {shown(value)}")
    return [str(x) for x in pair]


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
    wants="function",
    form=pair_of_symbols,
)
def check_pair(answer):
    """Compare on cases that tell the usual mistakes apart."""

    def counted(words, pairs=pairwise, weight=True):
        counts = {}
        for symbols, count in words.items():
            for pair in pairs(symbols):
                counts[pair] = counts.get(pair, 0) + (count if weight else 1)
        return counts

    def first(counts, key=lambda pair: pair):
        return list(min(counts, key=lambda pair: (-counts[pair], key(pair))))

    def without_overlap(symbols):
        places = list(pairwise(symbols))
        return [pair for i, pair in enumerate(places) if i == 0 or places[i - 1] != pair or i % 2 == 0]

    def last(counts):
        return list(max(counts, key=lambda pair: (counts[pair], pair)))

    def across(words):
        return counted({tuple(chain(*([s * n for s, n in words.items()]))): 1})

    cases = {
        "for ab (once), abc (once), xy (3 times) you return {value}: x-y is frequent": (
            {("a", "b"): 1, ("a", "b", "c"): 1, ("x", "y"): 3},
        ),
        "for xxxx (once), bc (twice) you return {value}, and {right} occurs three times": (
            {("x", "x", "x", "x"): 1, ("b", "c"): 2},
        ),
        "for th-e (twice), t-h (once), e (9 times) you return {value}: a symbol may be several letters": (
            {("th", "e"): 2, ("t", "h"): 1, ("e",): 9},
        ),
        "for ba, ad, ac (a tie) you return {value}: take the alphabetically smaller, a-c": (
            {("b", "a"): 1, ("a", "d"): 1, ("a", "c"): 1},
        ),
        "for pq (5 times), rq (7 times), pqr (4 times) you return {value}, and {right} is right": (
            {("p", "q"): 5, ("r", "q"): 7, ("p", "q", "r"): 4},
        ),
    }
    slips = {
        "multiply by how often the word occurs: x-y three times beats a-b in two words": (
            lambda w: first(counted(w, weight=False))
        ),
        "the word xxxx holds the pair x-x three times: count every position, not every different pair once": (
            lambda w: first(counted(w, lambda symbols: set(pairwise(symbols)))),
            lambda w: first(counted(w, without_overlap)),
        ),
        "on a tie take the alphabetically smaller pair, by its second symbol if the first ones are equal": (
            lambda w: last(counted(w)),
            lambda w: list(max(counted(w), key=counted(w).get)),
            lambda w: first(counted(w), key=lambda pair: pair[0]),
        ),
        "that is the RAREST pair: x-y is frequent": (
            lambda w: list(min(counted(w), key=lambda pair: (counted(w)[pair], pair)))
        ),
        "a symbol may be several letters: do not join the symbols": (
            lambda w: first(counted({"".join(s): n for s, n in w.items()}))
        ),
        "a pair lies within one word: yours may reach from one word into the next": lambda w: first(
            across(w)
        ),
    }
    examine(answer, lambda w: first(counted(w)), cases, slips)
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
    wants="value",
    form=number,
)
def check_bytes(answer):
    """Six bytes."""
    slips = {
        "2 is the number of characters. How many bytes does each become in UTF-8?": 2,
        "3 is the number of bytes of one of the two characters": 3,
        "4 would be UTF-16. The tokenizer works on UTF-8: ask Python for the length": 4,
        "that is the number of bits: a byte has 8": 48,
    }
    compare(answer, 6, slips, "{value} is not the length of '你好'.encode('utf-8')", rtol=0)
    return "without merges learned from Chinese text, two characters cost six tokens."


@exercise(
    "03b-targets",
    "Shift the targets",
    minutes=5,
    difficulty=1,
    hints=(
        "The target of position i is token i + 1.",
        "You need length + 1 tokens to make `length` pairs.",
    ),
    wants="function",
    form=several(tensor, 2, "rows, as (inputs, targets)"),
)
def check_targets(answer):
    """Check shift, direction and lengths."""

    def rows(ids, length):
        inputs, targets = answer(ids, length)
        require(inputs.ndim == targets.ndim == 1, "return two rows: all inputs, then all targets")
        sizes = f"{len(inputs)} inputs and {len(targets)} targets: both must be {length}"
        require(len(inputs) == len(targets) == length, f"for length {length} you return {sizes}")
        return [inputs, targets]

    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    cases = {
        "of 3 1 4 1 5 9 2 6, the first 4 ids are the inputs, and the ids right after each input the targets, {right}; "
        "yours are {value}": (ids, 4),
        "right for length 4, but not for 7: {value}": (ids, 7),
        "right for one row, but not for 8 6 4 0 and length 2: {value}": (torch.tensor([8, 6, 4, 0]), 2),
    }
    slips = {
        "targets equal inputs: the model could copy its input and learn nothing. Shift by one": (
            lambda ids, n: [ids[:n], ids[:n]]
        ),
        "you have exchanged the two: the inputs are the first 4 ids, and the targets run ahead of them": (
            lambda ids, n: [ids[1 : n + 1], ids[:n]]
        ),
        "your last target is the first token again: it should be the id after the inputs": (
            lambda ids, n: [ids[:n], ids[:n].roll(-1)]
        ),
        "your targets run backwards by one: take the token right after each input, not the one before": (
            lambda ids, n: [ids[:n], ids[:n].roll(1)]
        ),
    }
    examine(rows, lambda ids, n: [ids[:n], ids[1 : n + 1]], cases, slips)
    return "one row of text gives a prediction to learn from at every position."
