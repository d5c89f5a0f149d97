"""Chapter 3b, tokens: answers that learners give, right and wrong."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from answers import assert_right, assert_wrong

RIGHT, WRONG = {}, {}


# 03b-pair


def counts_of(words, weight=True, positions=True):
    counts = Counter()
    for symbols, count in words.items():
        pairs = list(pairwise(symbols))
        for pair in pairs if positions else set(pairs):
            counts[pair] += count if weight else 1
    return counts


def pair_by_index(words):
    counts = {}
    for word in words:
        for i in range(len(word) - 1):
            counts.setdefault((word[i], word[i + 1]), []).append(words[word])
    return sorted((-sum(times), pair) for pair, times in counts.items())[0][1]


def smaller_of_ties(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def pair_runs_over_the_end(words):
    counts = Counter()
    for word, count in words.items():
        for i in range(len(word)):
            counts[word[i], word[i + 1]] += count
    return smaller_of_ties(counts)


def pair_by_text(words):
    counts = Counter()
    for word, count in words.items():
        for a, b in pairwise("".join(word)):
            counts[a, b] += count
    return smaller_of_ties(counts)


def pair_without_overlap(words):
    counts = Counter()
    for word, count in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += "".join(word).count("".join(pair)) * count
    return smaller_of_ties(counts)


RIGHT["03b-pair"] = [
    pair_by_index,
    lambda words: list(smaller_of_ties(counts_of(words))),
    lambda words: sorted(sorted(counts_of(words).items()), key=lambda item: item[1], reverse=True)[0][0],
    lambda words: max(sorted(counts_of(words)), key=counts_of(words).get),
]
WRONG["03b-pair"] = {
    "does not weight": ("multiply by how often", lambda w: smaller_of_ties(counts_of(w, weight=False))),
    "counts a pair once per word": (
        "count every position",
        lambda w: smaller_of_ties(counts_of(w, positions=False)),
    ),
    "counts without overlap": ("count every position", pair_without_overlap),
    "larger pair on a tie": (
        "alphabetically smaller",
        lambda w: max((n, p) for p, n in counts_of(w).items())[1],
    ),
    "first pair on a tie": ("alphabetically smaller", lambda w: counts_of(w).most_common(1)[0][0]),
    "first symbol only on a tie": (
        "alphabetically smaller",
        lambda w: min(counts_of(w).items(), key=lambda item: (-item[1], item[0][0]))[0],
    ),
    "rarest": ("x-y is frequent", lambda w: min((n, p) for p, n in counts_of(w).items())[1]),
    "pair with its count": ("and only that", lambda w: counts_of(w).most_common(1)[0]),
    "all pairs": ("and only that", counts_of),
    "joined": ("a pair of symbols such as", lambda w: "".join(smaller_of_ties(counts_of(w)))),
    "letters instead of symbols": ("may be several letters", pair_by_text),
    "index too far": ("IndexError: tuple index out of range", pair_runs_over_the_end),
}

# 03b-bytes

RIGHT["03b-bytes"] = [len("你好".encode()), 6.0]
WRONG["03b-bytes"] = {
    "characters": ("number of characters", 2),
    "one character": ("one of the two", 3),
    "UTF-16": ("UTF-16", len("你好".encode("utf-16-le"))),
    "with the mark of UTF-16": ("is not the length of", 8),
    "bits": ("the number of bits", 48),
    "the bytes": ("give a number, not", "你好".encode()),
}

# 03b-targets

RIGHT["03b-targets"] = [
    lambda ids, n: ([ids[i] for i in range(n)], [ids[i + 1] for i in range(n)]),
    lambda ids, n: [ids[:n].numpy(), ids[1:][:n].numpy()],
    lambda ids, n: (ids[: n + 1][:-1].float(), ids[: n + 1][1:].tolist()),
    lambda ids, n: torch.stack([ids[:n], ids[1 : n + 1]]),
    lambda ids, n: ids[: n + 1].unfold(0, n, 1),
    lambda ids, n: map(list, zip(*pairwise(ids[: n + 1].tolist()), strict=True)),
]
WRONG["03b-targets"] = {
    "not shifted": ("could copy its input", lambda ids, n: (ids[:n], ids[:n])),
    "one target too few": ("4 inputs and 3 targets", lambda ids, n: (ids[:n], ids[1:n])),
    "both too short": ("3 inputs and 3 targets", lambda ids, n: (ids[: n - 1], ids[1:n])),
    "all the rest": ("4 inputs and 7 targets", lambda ids, n: (ids[:n], ids[1:])),
    "backwards": ("the first 4 ids", lambda ids, n: (ids[1 : n + 1], ids[:n])),
    "shifted by two": ("right after each input", lambda ids, n: (ids[:n], ids[2 : n + 2])),
    "next block": ("right after each input", lambda ids, n: (ids[:n], ids[n : 2 * n])),
    "rolled": ("the first token again", lambda ids, n: (ids[:n], ids[:n].roll(-1))),
    "the last ones": ("the first 4 ids", lambda ids, n: (ids[-n - 1 : -1], ids[-n:])),
    "targets only": ("rows, as (inputs", lambda ids, n: ids[1 : n + 1]),
    "one target": ("two rows: all inputs", lambda ids, n: (ids[:n], ids[n])),
    "list of pairs": ("rows, as (inputs", lambda ids, n: list(pairwise(ids[: n + 1]))),
    "in a dictionary": ("rows, as (inputs", lambda ids, n: {"inputs": ids[:n], "targets": ids[1 : n + 1]}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])
