"""Exercises of chapter 6b on copying: the pointer, and which words are from the source."""

import numpy as np
import torch

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import number, tensor


def mixed(p_vocab, weights, source_ids, p_gen, repeats="add"):
    """The distribution of a pointer with its parts open to slips."""
    copied = torch.zeros_like(p_vocab)
    if repeats == "add":
        copied.index_add_(0, source_ids, weights)
    else:
        copied[source_ids] = weights
    return p_gen * p_vocab + (1 - p_gen) * copied


@exercise(
    "06b-copy",
    "Write or copy",
    minutes=8,
    difficulty=2,
    hints=(
        "Begin with p_gen * p_vocab: what the vocabulary gives to each word.",
        "Go through the source: position i gives (1 - p_gen) * weights[i] to the word source_ids[i].",
        "A word that stands twice in the source gets both shares: add, do not overwrite. In torch, "
        "p.index_add_(0, ids, values) does; p[ids] += values does not.",
    ),
    wants="function",
    form=tensor,
    keeps="what it is given",
)
def check_copy(answer):
    """A word twice in the source, a word that the vocabulary gives nothing, all gates."""
    generator = torch.Generator().manual_seed(2)

    def case(V, ids, p_gen):
        draw = lambda n: torch.rand(n, generator=generator).softmax(0)  # noqa: E731
        return draw(V), draw(len(ids)), torch.tensor(ids), p_gen

    cases = {
        "for a vocabulary of 5 and a source of 3 you return {value}, expected {right}": case(
            5, [3, 0, 4], 0.4
        ),
        "a word that stands twice in the source gets both shares: expected {right}, yours is {value}": case(
            4, [2, 1, 2, 2], 0.3
        ),
        "with p_gen = 1 nothing is copied: expected {right}, yours is {value}": case(4, [0, 1], 1.0),
        "with p_gen = 0 all is copied: expected {right}, yours is {value}": case(4, [3, 1, 1], 0.0),
    }
    slips = {
        "p_gen belongs to the vocabulary, and 1 - p_gen to the copies; yours are exchanged": (
            lambda v, w, i, p: mixed(v, w, i, 1 - p)
        ),
        "a word that stands twice in the source is overwritten: add its shares (p[ids] += values takes one of them)": (
            lambda v, w, i, p: mixed(v, w, i, p, "last"),
        ),
        "what is copied must count 1 - p_gen, so that all sums to 1": lambda v, w, i, p: (
            p * v + mixed(v, w, i, 0.0)
        ),
        "what the vocabulary gives must count p_gen, so that all sums to 1": lambda v, w, i, p: (
            v + (1 - p) * mixed(v, w, i, 0.0)
        ),
        "both are added in full: weight them with p_gen and 1 - p_gen": lambda v, w, i, p: (
            v + mixed(v, w, i, 0.0)
        ),
        "these are copies alone: p_gen of the vocabulary is missing": (
            lambda v, w, i, p: mixed(v, w, i, 0.0),
            lambda v, w, i, p: (1 - p) * mixed(v, w, i, 0.0),
        ),
        "these are words of the vocabulary alone: nothing is copied": (
            lambda v, w, i, p: v,
            lambda v, w, i, p: p * v,
        ),
        "return probabilities, not their logarithms": lambda v, w, i, p: mixed(v, w, i, p).log(),
    }
    examine(answer, mixed, cases, slips, "(V,), a probability for each word of the vocabulary")
    return "whatever p_gen is, the probabilities sum to 1, and each word that is copied keeps all its places."


def known_share(summary, source, ignore, unique=False, none=1.0):
    """The share of a summary's words that the source has, with its parts open to slips."""
    summary = list(dict.fromkeys(summary)) if unique else summary
    counted = [word for word in summary if word not in ignore]
    return float(np.mean([word in source for word in counted])) if counted else none


@exercise(
    "06b-source",
    "Which words are from the source?",
    minutes=5,
    difficulty=1,
    hints=(
        "Keep the words of the summary that are not to be ignored.",
        "Of those, the share that the source has: sum(word in source for word in kept) / len(kept).",
        "If no word is left, nothing was made up: return 1.",
    ),
    wants="function",
    form=number,
    keeps="the words",
)
def check_source(answer):
    """Words twice, ignored words in the source and not in it, and no word left."""
    split = lambda text: text.split()  # noqa: E731
    ignore = {"the", "a", "of"}
    cases = {
        "for 'draw the blue chart' and 'it can draw a chart' you return {value}, expected {right}": (
            split("draw the blue chart"), split("it can draw a chart"), ignore,
        ),
        "each word counts as often as it comes: expected {right}, yours is {value}": (
            split("red red red line of a chart"), split("the red chart"), ignore,
        ),
        "which words are ignored is given: here none; expected {right}, yours is {value}": (
            split("a list of a kind"), split("kind and good"), set(),
        ),
        "a summary without a word that counts makes nothing up: {right}; yours is {value}": (
            split("the a of"), split("chart"), ignore,
        ),
    }  # fmt: skip
    slips = {
        "these are the words of the SOURCE that the summary has; it is to be the summary's words": (
            lambda s, source, i: known_share(source, s, i)
        ),
        "words that are to be ignored are counted": (
            lambda s, source, i: known_share(s, source, ()),
            lambda s, source, i: sum(w in source and w not in i for w in s) / len(s),
        ),
        "each word is to count as often as it comes; yours counts different words": (
            lambda s, source, i: known_share(s, source, i, unique=True)
        ),
        "this is the share of words that the source does NOT have": (
            lambda s, source, i: 1 - known_share(s, source, i),
            lambda s, source, i: 1 - known_share(s, source, i, none=0.0),
        ),
        "where no word is left, nothing was made up: return 1": (
            lambda s, source, i: known_share(s, source, i, none=0.0)
        ),
        "this is the number of words; divide it by how many there are": (
            lambda s, source, i: sum(w in source for w in s if w not in i)
        ),
    }
    examine(answer, known_share, cases, slips)
    return "1 means that each word of content stands in the source; not that they are put together truly."
