"""Answers that learners give to the exercises of chapter 6b, right and wrong."""

import difflib
from collections import Counter
from functools import lru_cache

import networkx
import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

from llmcourse.evaluate.rouge import FUNCTION_WORDS, lcs_length, rouge_l, source_share
from llmcourse.teach.chapters.ch06b_summarization.checks import f1, in_turn, longest_run
from llmcourse.teach.chapters.ch06b_summarization.copy_checks import known_share, mixed

RIGHT, WRONG = {}, {}


# 06b-rouge-l


def recursive(a, b):
    @lru_cache
    def length(i, j):
        if i == 0 or j == 0:
            return 0
        if a[i - 1] == b[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return 2 * length(len(a), len(b)) / (len(a) + len(b))


def in_numpy(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i in range(len(a)):
        for j in range(len(b)):
            table[i + 1, j + 1] = max(table[i, j + 1], table[i + 1, j], table[i, j] + (a[i] == b[j]))
    return 2 * table[-1, -1] / (len(a) + len(b))


RIGHT["06b-rouge-l"] = [
    lambda a, b: rouge_l(a, b).f1,
    recursive,
    in_numpy,
    lambda a, b: f1(lcs_length(b, a), a, b),
]
WRONG["06b-rouge-l"] = {
    "rouge-1": ("which is ROUGE-1", lambda a, b: f1((Counter(a) & Counter(b)).total(), a, b)),
    "sets": ("which is ROUGE-1", lambda a, b: f1(len(set(a) & set(b)), a, b)),
    "substring": ("no gaps", lambda a, b: f1(longest_run(a, b), a, b)),
    "places": ("at the same place", lambda a, b: f1(sum(map(str.__eq__, a, b)), a, b)),
    "greedy": ("you take the first match", lambda a, b: f1(in_turn(a, b), a, b)),
    "length": ("length of the common words", lcs_length),
    "recall": ("this is the recall", lambda a, b: lcs_length(a, b) / len(b)),
    "precision": ("this is the precision", lambda a, b: lcs_length(a, b) / len(a) if a else 0.0),
    "no 2": ("factor 2", lambda a, b: recursive(a, b) / 2),
    "by difflib": ("", lambda a, b: f1(round(difflib.SequenceMatcher(a=a, b=b).ratio() * 5), a, b)),
    "triple": ("", lambda a, b: rouge_l(a, b)),
}


# 06b-rank


def by_networkx(weights, damping):
    graph = networkx.from_numpy_array(weights.numpy(), create_using=networkx.DiGraph)
    return list(networkx.pagerank(graph, alpha=damping, tol=1e-10, max_iter=1000).values())


def by_eigenvector(weights, damping):
    weights = weights.numpy()
    walk = damping * weights / weights.sum(1, keepdims=True) + (1 - damping) / len(weights)
    values, vectors = np.linalg.eig(walk.T)
    vector = vectors[:, values.real.argmax()].real
    return vector / vector.sum()


def by_equations(weights, damping):
    N = len(weights)
    steps = weights / weights.sum(1, keepdim=True)
    return torch.linalg.solve(torch.eye(N) - damping * steps.T, torch.full((N,), (1 - damping) / N).double())


def walk(weights, damping, steps=100, jump=None):
    N = len(weights)
    rank = torch.full((N,), 1 / N).double()
    for _ in range(steps):
        rank = damping * rank @ (weights / weights.sum(1, keepdim=True)) + (jump or (1 - damping) / N)
    return rank


RIGHT["06b-rank"] = [by_networkx, by_eigenvector, by_equations, walk]
WRONG["06b-rank"] = {
    "backwards": ("backwards", lambda w, d: walk(w.T, d)),
    "no damping": ("damping is missing", lambda w, d: walk(w, 1.0)),
    "exchanged": ("exchanged", lambda w, d: walk(w, 1 - d)),
    "jump": ("spread over N", lambda w, d: walk(w, d, jump=1 - d)),
    "one step": ("one step", lambda w, d: walk(w, d, 1)),
    "degree": ("added up", lambda w, d: w.sum(0)),
    "share": ("added up", lambda w, d: w.sum(0) / w.sum()),
    "place": ("not the place", lambda w, d: walk(w, d).argmax()),
    "matrix": ("(N,)", lambda w, d: w / w.sum(1, keepdim=True)),
}


# 06b-copy


def by_loop(p_vocab, weights, source_ids, p_gen):
    p = [p_gen * x for x in p_vocab.tolist()]
    for i, w in zip(source_ids.tolist(), weights.tolist(), strict=True):
        p[i] += (1 - p_gen) * w
    return p


RIGHT["06b-copy"] = [
    mixed,
    by_loop,
    lambda v, w, i, p: p * v + (1 - p) * torch.zeros_like(v).scatter_add(0, i, w),
    lambda v, w, i, p: p * v + (1 - p) * w @ torch.nn.functional.one_hot(i, len(v)).float(),
    lambda v, w, i, p: p * v.numpy() + (1 - p) * np.bincount(i.numpy(), w.numpy(), len(v)),
]


def with_plus(v, w, i, p):
    out = p * v
    out[i] += (1 - p) * w
    return out


WRONG["06b-copy"] = {
    "exchanged": ("exchanged", lambda v, w, i, p: mixed(v, w, i, 1 - p)),
    "overwritten": ("overwritten", with_plus),
    "full copies": ("must count 1 - p_gen", lambda v, w, i, p: p * v + mixed(v, w, i, 0.0)),
    "full words": ("must count p_gen", lambda v, w, i, p: v + (1 - p) * mixed(v, w, i, 0.0)),
    "both": ("in full", lambda v, w, i, p: v + mixed(v, w, i, 0.0)),
    "copies": ("copies alone", lambda v, w, i, p: mixed(v, w, i, 0.0)),
    "words": ("nothing is copied", lambda v, w, i, p: v),
    "logs": ("not their logarithms", lambda v, w, i, p: mixed(v, w, i, p).log()),
    "source": ("(V,)", lambda v, w, i, p: (1 - p) * w),
}


# 06b-source

RIGHT["06b-source"] = [
    known_share,
    lambda s, source, ignore: np.mean([w in source for w in s if w not in ignore] or [1]),
    lambda s, source, ignore: torch.tensor([float(w in source) for w in s if w not in ignore] or [1.0]).mean(),
    lambda s, source, ignore: (
        sum(n for w, n in Counter(s).items() if w in source and w not in ignore)
        / (len([w for w in s if w not in ignore]) or 1)
        + (not [w for w in s if w not in ignore])
    ),
]  # fmt: skip
WRONG["06b-source"] = {
    "turned": ("words of the SOURCE", lambda s, source, i: known_share(source, s, i)),
    "not ignored": ("to be ignored are counted", lambda s, source, i: known_share(s, source, ())),
    "unique": ("as often as it comes", lambda s, source, i: known_share(s, source, i, unique=True)),
    "complement": ("does NOT have", lambda s, source, i: 1 - known_share(s, source, i)),
    "empty": ("nothing was made up: return 1", lambda s, source, i: known_share(s, source, i, none=0.0)),
    "count": ("number of words", lambda s, source, i: sum(w in source for w in s if w not in i)),
    "list": ("give a number", lambda s, source, i: [w for w in s if w in source]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_are_accepted(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_told_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_the_exercise_counts_as_the_package_does():
    summary, source = ["draw", "the", "blue", "chart"], ["it", "can", "draw", "a", "chart"]
    ours = source_share([" ".join(summary)], [" ".join(source)])[0]
    assert known_share(summary, source, FUNCTION_WORDS) == pytest.approx(ours)
