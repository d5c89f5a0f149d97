"""Exercises of chapter 6b: summarization; those on copying lie in `copy_checks`."""

from collections import Counter

import torch

from llmcourse.evaluate.extractive import page_rank
from llmcourse.evaluate.rouge import lcs_length, shares
from llmcourse.teach.chapters.ch06b_summarization import copy_checks  # noqa: F401 - registers its exercises
from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


def f1(matches, a, b) -> float:
    """F1 of so many matches of two lists of words."""
    return shares(matches, len(a), len(b)).f1


def longest_run(a, b) -> int:
    """The longest run of words without a gap that stands in both."""
    starts = [(i, j) for i in range(len(a)) for j in range(len(b))]
    lengths = range(1, min(len(a), len(b)) + 1)
    return max(
        (
            n
            for n in lengths
            if any(a[i : i + n] == b[j : j + n] for i, j in starts if j + n <= len(b) and i + n <= len(a))
        ),
        default=0,
    )


def in_turn(a, b) -> int:
    """Words of a that are found in b, each searched behind the one before: the first match is taken."""
    place, found = 0, 0
    for word in a:
        if word in b[place:]:
            place, found = b.index(word, place) + 1, found + 1
    return found


@exercise(
    "06b-rouge-l",
    "Count the words in order",
    minutes=12,
    difficulty=3,
    hints=(
        "Write a table: best[i][j] is the length for the first i words of the one text and the first j of the other. "
        "A row and a column of zeros stand for the empty text.",
        "If word i equals word j, the answer is one more than for both texts without them: best[i-1][j-1] + 1.",
        "If not, one of the two words is not used: the larger of best[i-1][j] and best[i][j-1].",
        "The last entry L gives precision L / len(summary), recall L / len(reference), and F1 = 2PR / (P + R). Where "
        "nothing is shared, that would be 0/0: return 0.",
    ),
    wants="function",
    form=number,
    keeps="the words",
)
def check_rouge_l(answer):
    """Texts in which order, gaps, repeats and greed matter; nothing shared, and an empty text."""
    split = lambda *texts: tuple(text.split() for text in texts)  # noqa: E731
    right = lambda a, b: f1(lcs_length(a, b), a, b)  # noqa: E731
    cases = {
        "for 'draw the chart' and 'draw a red chart' you return {value}, expected {right}": split(
            "draw the chart", "draw a red chart"
        ),
        "order matters: for 'chart the draw to line' and 'draw the chart' expected {right}, yours is {value}": split(
            "chart the draw to line", "draw the chart"
        ),
        "a word that comes twice in one text matches once: expected {right}, yours is {value}": split(
            "the the the chart", "the chart of red"
        ),
        "the first match is not always the best one: for 'x a b c y' and 'y a b c x' expected {right}, yours is {value}": split(
            "x a b c y", "y a b c x"
        ),
        "gaps are allowed in both: expected {right}, yours is {value}": split("a x b y c z", "a b q q q c"),
        "where no word is shared the score is 0; yours is {value}": split("a b", "c d e"),
        "an empty summary scores 0; yours is {value}": ([], ["a"]),
    }
    counted = lambda a, b: (Counter(a) & Counter(b)).total()  # noqa: E731
    slips = {
        "you count shared words in any order, which is ROUGE-1: here they must stand in the same order": (
            lambda a, b: f1(counted(a, b), a, b),
            lambda a, b: f1(len(set(a) & set(b)), a, b),
        ),
        "your run has no gaps: between two words that match, others may stand": (
            lambda a, b: f1(longest_run(a, b), a, b)
        ),
        "you compare words at the same place: one word too many at the beginning, and nothing matches": (
            lambda a, b: f1(sum(x == y for x, y in zip(a, b, strict=False)), a, b)
        ),
        "you take the first match that comes: leaving a word out may let more words match behind it": (
            lambda a, b: f1(in_turn(a, b), a, b),
            lambda a, b: f1(in_turn(b, a), a, b),
        ),
        "this is the length of the common words; make precision, recall and F1 of it": lcs_length,
        "this is the recall; F1 needs the precision too": lambda a, b: lcs_length(a, b) / len(b),
        "this is the precision; F1 needs the recall too": lambda a, b: lcs_length(a, b) / max(len(a), 1),
        "this is the mean of precision and recall; F1 is their harmonic mean, 2PR / (P + R)": (
            lambda a, b: (lcs_length(a, b) / max(len(a), 1) + lcs_length(a, b) / len(b)) / 2
        ),
        "the factor 2 of F1 = 2PR / (P + R) is missing": lambda a, b: right(a, b) / 2,
    }
    examine(answer, right, cases, slips)
    return "it is ROUGE-L: the longest common subsequence, as F1."


@exercise(
    "06b-rank",
    "Let sentences vote",
    minutes=10,
    difficulty=2,
    hints=(
        "Divide each row of the weights by its sum: row i then says with which probability a walk goes from i to j.",
        "One step of the walk: rank @ steps. With probability 1 - damping it jumps to any of the N sentences instead.",
        "new = damping * rank @ steps + (1 - damping) / N. Begin with 1/N everywhere, and repeat 100 times.",
    ),
    wants="function",
    form=tensor,
    keeps="the weights",
)
def check_rank(answer):
    """Tables that are not symmetric, so that rows and columns differ, and two dampings."""
    generator = torch.Generator().manual_seed(1)

    def case(N, damping):
        return torch.rand(N, N, generator=generator).double() ** 2 + 0.01, damping

    def right(weights, damping):
        return torch.from_numpy(page_rank(weights.numpy(), damping))

    cases = {
        "for three sentences and damping 0.85 you return {value}, expected {right}": case(3, 0.85),
        "right for 0.85, but not for damping 0.5: expected {right}, yours is {value}": case(3, 0.5),
        "right for three sentences, but not for six: expected {right}, yours is {value}": case(6, 0.85),
    }

    def walk(weights, damping, steps=200, jump=None, axis=1):
        weights = weights / weights.sum(axis, keepdim=True)
        N = len(weights)
        rank = torch.full((N,), 1 / N, dtype=weights.dtype)
        for _ in range(steps):
            rank = damping * (rank @ weights if axis == 1 else weights @ rank) + (
                (1 - damping) / N if jump is None else jump(damping, N)
            )
        return rank

    slips = {
        "the walk goes along the rows: weights[i, j] is how strongly i points to j. You follow it backwards": (
            lambda w, d: walk(w, d, axis=0),
            lambda w, d: walk(w.T, d),
        ),
        "each row must be divided by its sum first, so that it holds probabilities": (
            lambda w, d: plain_walk(w, d, 100),
            lambda w, d: plain_walk(w, d, 100, True),
        ),
        "the damping is missing: with probability 1 - damping the walk jumps anywhere": lambda w, d: walk(
            w, 1.0
        ),
        "damping and 1 - damping are exchanged": lambda w, d: walk(w, 1 - d),
        "the jump is spread over N sentences: (1 - damping) / N for each": (
            lambda w, d: walk(w, d, jump=lambda damping, N: 1 - damping),
            lambda w, d: len(w) * walk(w, d),
        ),
        "one step is not enough: repeat it until nothing changes": lambda w, d: walk(w, d, 1),
        "this is what points to each sentence, added up; a vote of an important sentence counts more": (
            lambda w, d: w.sum(0),
            lambda w, d: w.sum(0) / w.sum(),
            lambda w, d: w.sum(1) / w.sum(),
        ),
        "return the ranks, not the place of the best": lambda w, d: right(w, d).argmax(),
    }
    examine(answer, right, cases, slips, "(N,), a number for each sentence", rtol=1e-4, atol=1e-5)
    return "the ranks sum to 1, and one more step of the walk leaves them as they are."


def plain_walk(weights, damping, steps, normal=False):
    """The walk without rows that are probabilities; `normal` divides by the sum after each step."""
    rank = torch.full((len(weights),), 1 / len(weights), dtype=weights.dtype)
    for _ in range(steps):
        rank = damping * rank @ weights + (1 - damping) / len(weights)
        rank = rank / rank.sum() if normal else rank
    return rank
