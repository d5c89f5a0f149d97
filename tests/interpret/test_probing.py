"""Probes against scikit-learn, and scores on states that are made so that the answer is known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from llmcourse.interpret.probing import LinearProbe, balanced, capped, control_labels, probe

N_TYPES, C = 1000, 40


def made_states(seed=0, n=8000):
    """Return states that hold the type as a random vector and, in their last number, a bit of the context."""
    rng = np.random.default_rng(seed)
    types = rng.integers(N_TYPES, size=n)
    context = rng.integers(2, size=n)
    states = rng.normal(size=(N_TYPES, C))[types]
    states[:, -1] = context + 0.1 * rng.normal(size=n)
    return torch.from_numpy(states), types, context


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("ridge", [1.0, 100.0])
def test_the_probe_is_that_of_scikit_learn(n_classes, ridge):
    rng = np.random.default_rng(1)
    labels = rng.integers(n_classes, size=300)
    x = rng.normal(size=(300, 8)) * 3 + 5 + labels[:, None] * rng.normal(size=8)
    x[:, 2] = 7  # a number that never changes
    scaler = StandardScaler().fit(x)
    library = RidgeClassifier(alpha=ridge).fit(scaler.transform(x), labels)
    assert (
        LinearProbe(torch.from_numpy(x), labels, ridge).predict(x) == library.predict(scaler.transform(x))
    ).all()


@pytest.mark.parametrize(
    "kind", [np.asarray, list, lambda y: torch.from_numpy(y), lambda y: ["noun" if v else "verb" for v in y]]
)
def test_labels_come_in_any_form(kind):
    x, _, context = made_states(n=500)
    assert LinearProbe(x, kind(context)).accuracy(x.bfloat16(), kind(context)) == 1


# --- what the scores mean -----------------------------------------------------------------------


def test_what_stands_in_the_states_is_read_on_new_words_too():
    x, types, context = made_states()
    scores = probe(x, context, types)
    assert scores.known > 0.99
    assert scores.new > 0.99
    assert scores.selectivity == scores.known - scores.control


def test_what_a_probe_learns_by_heart_is_gone_on_new_words():
    """Fewer types than features: any labels of the types can be learned, and none can be transferred."""
    x, types, _ = made_states()
    few = types < 30
    labels = control_labels(types, seed=5)
    scores = probe(x[few], labels[few], types[few], n_repeats=100)
    assert scores.known == 1
    assert scores.control == 1
    assert scores.selectivity == 0
    assert abs(scores.new - 0.5) < 0.1  # one drawing of 30 labels
    assert abs(scores.control_new - 0.5) < 0.04


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_control_task_on_new_words_is_within_two_points_of_chance(n_classes):
    """A standard deviation is 0.5/√(10 · 500), 0.7 points, and less for more classes."""
    x, types, context = made_states()
    labels = context if n_classes == 2 else context + 2 * (np.arange(len(types)) % 2)
    scores = probe(x, labels, types, n_repeats=10)
    assert abs(scores.control_new - 1 / n_classes) < 0.02
    assert scores.control > 1 / n_classes + 0.04  # on known words it is not


def test_states_that_say_nothing_reach_the_majority_at_most():
    rng = np.random.default_rng(0)
    scores = probe(rng.normal(size=(4000, 5)), rng.random(4000) < 0.7, rng.integers(200, size=4000))
    assert scores.majority == pytest.approx(0.7, abs=0.02)
    assert scores.known == pytest.approx(scores.majority, abs=0.01)
    assert scores.new == pytest.approx(0.7, abs=0.02)


# --- labels and choices -------------------------------------------------------------------------


def test_control_labels_belong_to_the_type_and_are_equally_likely():
    types = np.random.default_rng(0).integers(5000, size=20_000)
    labels = control_labels(types, n_classes=4, seed=3)
    assert len(set(zip(types.tolist(), labels.tolist(), strict=True))) == len(np.unique(types))
    of_types = labels[np.unique(types, return_index=True)[1]]
    assert np.abs(np.bincount(of_types) / len(of_types) - 0.25).max() < 0.03
    assert (labels != control_labels(types, n_classes=4, seed=4)).mean() == pytest.approx(0.75, abs=0.03)


def test_capped_keeps_rare_types_whole_and_chooses_among_frequent_ones():
    types = np.repeat([3, 1, 2], [50, 2, 10])
    np.random.default_rng(0).shuffle(types)
    kept = capped(types, most=5)
    assert (np.diff(kept) > 0).all()
    assert np.bincount(types[kept]).tolist() == [0, 2, 5, 5]
    assert kept.tolist() != capped(types, most=5, seed=1).tolist()
    assert capped(list("abab"), most=9).tolist() == [0, 1, 2, 3]


def test_balanced_has_equally_many_of_each_class():
    labels = np.repeat(["a", "b", "c"], [5, 30, 9])
    kept = balanced(labels)
    assert np.unique(labels[kept], return_counts=True)[1].tolist() == [5, 5, 5]
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(labels=[1] * 8), "all 8 labels are the same"),
        (dict(labels=[0, 1]), "8 tokens, 2 labels, 8 types"),
        (dict(types=[0]), "8 tokens, 8 labels, 1 types"),
        (dict(labels=[0.5] * 8), "give a class"),
        (dict(features=torch.full((8, 2), float("nan"))), "give finite numbers"),
        (dict(features=torch.zeros(8)), r"features of \(8,\)"),
        (dict(n_repeats=0), "n_repeats=0"),
    ],
)
def test_what_cannot_be_probed_is_named(change, message):
    good = dict(features=torch.eye(8), labels=[0, 1] * 4, types=list(range(8)))
    with pytest.raises(ValueError, match=message):
        probe(**good | change)


@pytest.mark.parametrize("n_types", [2, 3, 4])
def test_few_types_need_no_luck(n_types):
    """A random class for each of a few types is often the same one: then that is the only answer."""
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        scores = probe(
            x, [i // 30 ^ i % 2 for i in range(60)], [i // 3 % n_types for i in range(60)], seed=seed
        )
        assert 0 <= scores.control <= 1
        assert 0 <= scores.control_new <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(types=[0] * 60), "1 types.*give more text"),
        (dict(train=[True] * 60), "0 of test"),
        (dict(train=[True] * 30), "True or False for each"),
        (dict(train=[i % 2 == 0 for i in range(60)]), "labels of training are the same"),
        (dict(ridge=-1.0), "ridge is -1"),
        (dict(ridge=float("nan")), "ridge is nan"),
        (dict(features=torch.ones(60, 5), ridge=0), "ridge=0 leaves the weights open"),
    ],
)
def test_too_few_words_and_a_penalty_that_is_none_are_named(change, message):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    given = dict(features=x, labels=[i % 2 for i in range(60)], types=[i // 3 % 7 for i in range(60)])
    with pytest.raises(ValueError, match=message):
        probe(**(given | change))


def test_a_label_for_each_token_is_needed():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="6 tokens but 1 labels"):
        LinearProbe(x, [0, 1, 0, 1, 0, 1]).accuracy(x, [1])
