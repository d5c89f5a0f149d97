"""The helpers of `04b_multi_head`: the marks of roles, counted by hand, and the task of lookups."""

import itertools
import math

import pytest
import torch

from llmcourse.teach.chapters.ch04b_multi_head import figures, lookups, roles


@pytest.fixture
def ids():
    return torch.randint(4, (3, 12), generator=torch.Generator().manual_seed(0))


def test_marks_are_those_of_a_loop_over_places(ids):
    same, after = roles.earlier_same(ids), roles.after_earlier_same(ids)
    for b, i, j in itertools.product(range(3), range(12), range(12)):
        row = ids[b].tolist()
        assert same[b, i, j] == (j < i and row[j] == row[i])
        assert after[b, i, j] == (1 <= j < i - 1 and row[j - 1] == row[i])


def test_a_head_that_plays_a_role_has_it_wholly(ids):
    """For each role, weights that do nothing else; what a query cannot see, it looks at itself instead."""
    T = ids.shape[1]
    itself = torch.eye(T).expand(3, T, T)
    same, after = (places(ids).float() for places in (roles.earlier_same, roles.after_earlier_same))
    previous = torch.eye(T).roll(-1, dims=1).tril().expand(3, T, T)
    even = torch.ones(T, T).tril().expand(3, T, T)
    weights = []
    for wanted in (previous, same, after, even):
        rows = torch.where(wanted.any(-1, keepdim=True), wanted, itself)
        weights.append(rows / rows.sum(-1, keepdim=True))
    weights = torch.stack(weights, dim=1)[:, None]  # (B, 1 layer, 4 heads, T, T)
    found = roles.head_roles(weights, ids)
    assert {name: share.shape for name, share in found.items()} == dict.fromkeys(found, (1, 4))
    for head, share in enumerate(found.values()):
        assert share[0, head] == pytest.approx(1.0, abs=1e-5)
        assert share[0, head] == share.max()
    assert roles.even_share(same.bool()) == pytest.approx(found["same"][0, 3].item())


def test_weights_over_n_places_spread_over_n():
    for n in (1, 3, 8):
        p = torch.zeros(8)
        p[:n] = 1 / n
        assert roles.n_effective(p) == pytest.approx(n)
    p = 0.3
    expected = math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert roles.n_effective(torch.tensor([p, 1 - p])) == pytest.approx(expected)


def test_the_answers_of_the_lookups_are_those_of_a_loop():
    x, y = lookups.make_rows(20)
    for row, answers in zip(x.tolist(), y.tolist(), strict=True):
        for place in range(lookups.FIRST_SCORED, lookups.LENGTH):
            assert answers[place] == [row[place - 1], row[place - 2], row[place - 3], row[0]]


def test_accuracy_is_one_for_a_model_that_knows_and_a_sixteenth_for_one_that_guesses():
    class Knows(torch.nn.Module):
        def forward(self, x):
            back = [x.roll(k, 1) for k in (1, 2, 3)]
            answers = torch.stack([*back, x[:, :1].expand_as(x)], dim=-1)
            return torch.nn.functional.one_hot(answers, 16).float()

    assert lookups.accuracies(Knows()).tolist() == [1.0] * 4
    torch.manual_seed(0)
    untrained = lookups.accuracies(lookups.FourLookups(n_heads=2))
    assert untrained.tolist() == pytest.approx([1 / 16] * 4, abs=0.06)


def test_training_of_the_lookups_is_repeatable_and_learns():
    short = [lookups.train_lookups(4, seed=7, steps=150) for _ in range(2)]
    assert all(map(torch.equal, short[0].parameters(), short[1].parameters()))
    assert lookups.accuracies(short[0]).mean() > 0.5


def test_most_missed_are_drawn_in_the_order_of_their_cost():
    cost = torch.tensor([[0.1, 0.5, 0.0], [0.3, 0.2, 0.4]])
    axis = figures.most_missed(cost, n=3)
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "layer 0, head 1",
        "layer 1, head 2",
        "layer 1, head 0",
    ]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.5, 0.4, 0.3])
