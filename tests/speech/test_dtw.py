"""Warping against the recursion written out, and against what it must not see."""

from functools import cache

import pytest
import torch

from llmcourse.speech.dtw import dtw_distances, nearest_template


def by_recursion(a, b):
    @cache
    def cost(i, j):
        if i < 0 or j < 0:
            return float("inf")
        here = float((a[i] - b[j]).norm())
        return here if i == j == 0 else here + min(cost(i - 1, j), cost(i, j - 1), cost(i - 1, j - 1))

    return cost(len(a) - 1, len(b) - 1) / (len(a) + len(b))


def clip(n, seed, width=3):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("T", [1, 2, 7])
def test_distances_are_those_of_the_recursion(T):
    templates = [clip(n, n) for n in (1, 2, 5, 9, 4)]
    expected = [by_recursion(clip(T, 99), template) for template in templates]
    assert torch.allclose(dtw_distances(clip(T, 99), templates), torch.tensor(expected), atol=1e-5)


def test_it_is_symmetric_and_does_not_hear_slowness():
    a, b = clip(8, 0), clip(5, 1)
    assert torch.allclose(dtw_distances(a, [b]), dtw_distances(b, [a]))
    slow = a.repeat_interleave(torch.tensor([1, 3, 1, 2, 1, 4, 1, 1]), dim=0)
    assert dtw_distances(a, [slow]) < 1e-3
    assert nearest_template(slow, [b, a, clip(9, 2)], ["b", "a", "c"]) == "a"


@pytest.mark.parametrize(
    ("templates", "words"),
    [
        ([], "no template"),
        ([clip(3, 0), clip(0, 0)], r"template 1 has the shape \(0, 3\)"),
        ([clip(3, 0, width=4)], r"template 0 has the shape \(3, 4\).*3\)"),
    ],
)
def test_bad_templates_are_named(templates, words):
    with pytest.raises(ValueError, match=words):
        dtw_distances(clip(4, 0), templates)
