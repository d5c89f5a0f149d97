"""Every function that measures: the same answer for a row in any form, and none for a broken row.

What is right for a row with a hole is scipy's `nan_policy="raise"`: a number computed from NaN looks
like any other number (scipy/scipy#17731), so it is refused with its place.
"""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from llmcourse.evaluate import metrics, significance
from llmcourse.evaluate.likelihood import (
    bits_per_byte,
    evaluate_loss,
    multiple_choice,
    ngram_overlap,
    perplexity,
    token_losses,
)
from llmcourse.finetune import classify
from llmcourse.model import GPT, ModelConfig
from llmcourse.monitor import reference_bands as curves
from llmcourse.ngrams import NGramModel
from llmcourse.support.inputs import class_row, id_row, number, number_row, plain, text_list, whole
from llmcourse.tune import search

V = 7
MODEL = GPT(ModelConfig(vocab_size=V, context_length=8, d_model=8, n_heads=1, n_layers=1)).eval()
CLASSIFIER = classify.GPTClassifier(MODEL)
COUNTED = NGramModel([0, 1, 2, 1, 0, 1], V, order=2)
HALF = [0.5, 0.25, 1.0, 0.0, 0.75]  # exact in bfloat16 too
RIGHT = [1, 0, 1, 0, 1]
IDS = [1, 2, 3, 0, 6]


# name -> (a function of one row, a good row)
NUMBERS = {
    "bootstrap_means": (lambda row: significance.bootstrap_means(row, 50).sum(), HALF),
    "bootstrap_interval": (lambda row: significance.bootstrap_interval(row, n_resamples=50), HALF),
    "sign_flip_p_value": (lambda row: significance.sign_flip_p_value(row, 50), HALF),
    "paired_comparison, a": (lambda row: significance.paired_comparison(row, RIGHT), HALF),
    "paired_comparison, b": (lambda row: significance.paired_comparison(RIGHT, row), HALF),
    "reliability": (lambda row: metrics.reliability(row, RIGHT), HALF),
    "expected_calibration_error": (lambda row: metrics.expected_calibration_error(row, RIGHT), HALF),
    "correct": (lambda row: metrics.expected_calibration_error(HALF, row), RIGHT),
    "logits": (lambda row: metrics.fit_temperature([row, HALF], [2, 0]), HALF),
}
CLASSES = {
    "predicted": (lambda row: metrics.classification_scores(row, RIGHT), RIGHT),
    "labels": (lambda row: metrics.classification_scores(RIGHT, row), RIGHT),
    "linear_probe": (lambda row: classify.linear_probe(np.eye(5), row).predict(np.eye(5)).tolist(), RIGHT),
    "fit_temperature": (lambda row: metrics.fit_temperature([[1.0, 2.0]] * 5, row), RIGHT),
    "accuracy": (lambda row: classify.accuracy(CLASSIFIER, [[1, 2]] * 5, row), RIGHT),
}
TOKENS = {
    "NGramModel": (lambda ids: NGramModel(ids, V, 2).next_probabilities([1]).tolist(), IDS),
    "log_probabilities": (lambda ids: COUNTED.log_probabilities(ids).tolist(), IDS),
    "loss": (lambda ids: COUNTED.loss(ids), IDS),
    "next_probabilities": (lambda ids: COUNTED.next_probabilities(ids).tolist(), IDS),
    "sample": (lambda ids: COUNTED.sample(ids, 3), IDS),
    "evaluate_loss": (lambda ids: evaluate_loss(MODEL, ids), IDS),
    "token_losses": (lambda ids: token_losses(MODEL, ids).tolist(), IDS),
    "context": (lambda ids: multiple_choice(MODEL, [ids], [[[1], [2, 3]]])[0].tolist(), IDS),
    "option": (lambda ids: multiple_choice(MODEL, [[1, 2]], [[ids, [2, 3]]])[0].tolist(), IDS),
    "gpt_features": (lambda ids: classify.gpt_features(MODEL, [ids, [3]]).tolist(), IDS),
    "rows of accuracy": (lambda ids: classify.accuracy(CLASSIFIER, [ids, [3]], [0, 1]), IDS),
}
ALL = NUMBERS | CLASSES | TOKENS
MAY_BE_EMPTY = ("log_probabilities", "next_probabilities", "sample", "gpt_features", "rows of accuracy")
FORMS = {
    "tuple": tuple,
    "generator": lambda row: (x for x in row),
    "numpy": np.array,
    "torch": torch.tensor,
    "scalars of torch": lambda row: [torch.tensor(x) for x in row],
    "scalars of numpy": lambda row: list(np.array(row)),
}
FLOATS = {
    "bfloat16": lambda row: torch.tensor(row, dtype=torch.bfloat16),
    "with a gradient": lambda row: torch.tensor(row, dtype=torch.float32, requires_grad=True),
    "bfloat16 scalars": lambda row: [torch.tensor(x, dtype=torch.bfloat16) for x in row],
    "fractions": lambda row: [Fraction(x) for x in row],
    "float16": lambda row: np.array(row, dtype=np.float16),
}


def same(a, b) -> bool:
    return a == b or np.allclose(np.array(a, dtype=float), np.array(b, dtype=float), rtol=1e-6)


def refuses(measure, *broken) -> None:
    """Demand a ValueError with a remedy for each: not a number, nor the raw error of a library."""
    for row in broken:
        with pytest.raises(ValueError, match=r"give|must|needs?|choose|name the"):
            measure(row)


def with_each(bad, row, places=(0, 2, 4)) -> list[list]:
    """Return the row with each of the bad items at each of the places."""
    return [[*row[:place], item, *row[place + 1 :]] for item in bad for place in places]


@pytest.mark.parametrize("name", ALL)
def test_a_row_counts_the_same_in_any_form(name):
    measure, row = ALL[name]
    wanted = measure(row)
    for form in FORMS.values():
        assert same(measure(form(row)), wanted)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_count_the_same_in_any_precision(name):
    measure, row = NUMBERS[name]
    wanted = measure(row)
    for form in FLOATS.values():
        assert same(measure(form(row)), wanted)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_row_with_something_that_is_no_number_is_refused(name):
    measure, row = NUMBERS[name]
    refuses(measure, *with_each([math.nan, math.inf, -math.inf, None, "0.5", [0.5], 1j, 10**400], row))


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("name", ["a", "b"])
def test_the_place_is_named(name, place):
    rows = {"a": list(HALF), "b": list(RIGHT)}
    rows[name][place] = math.nan
    with pytest.raises(ValueError, match=re.escape(f"{name}[{place}] is nan")):
        significance.paired_comparison(**rows)


@pytest.mark.parametrize("name", CLASSES)
def test_a_row_with_something_that_is_no_class_is_refused(name):
    measure, row = CLASSES[name]
    refuses(measure, *with_each([math.nan, 0.5, math.inf, [1], 1j], row))


@pytest.mark.parametrize("name", TOKENS)
def test_a_row_with_something_that_is_no_id_is_refused(name):
    """-100 is torch's target that does not count: as the last token, it had a loss of 0."""
    measure, row = TOKENS[name]
    refuses(measure, *with_each([-1, V, -100, 0.5, math.nan, None, "1", [1], 2**70], row))


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_row_is_refused(name):
    measure, _ = ALL[name]
    refuses(measure, [[1.0, 0.0]] * 5, "11111", {1.0, 0.0}, {1: 1}, 1.0, None, np.ones((5, 2)))
    if name not in MAY_BE_EMPTY:
        refuses(measure, [], np.array([]), torch.tensor([]), iter([]))


@pytest.mark.parametrize("name", [*NUMBERS, *CLASSES])
def test_rows_of_unequal_length_are_refused(name):
    measure, row = ALL[name]
    if name not in ("bootstrap_means", "bootstrap_interval", "sign_flip_p_value"):
        refuses(measure, row[:-1], [*row, row[0]])


def test_a_masked_item_is_missing_and_not_the_number_below_the_mask():
    masked = np.ma.array(HALF, mask=[0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match=re.escape("values[1] is None")):
        significance.bootstrap_interval(masked)


WHOLE = {
    "n_resamples": lambda n: significance.bootstrap_means(HALF, n),
    "n_resamples of signs": lambda n: significance.sign_flip_p_value(HALF, n),
    "n_bins": lambda n: metrics.reliability(HALF, RIGHT, n),
    "batch_size": lambda n: evaluate_loss(MODEL, IDS, batch_size=n),
    "batch_size of rows": lambda n: classify.batches_by_length([1, 2], n),
    "order": lambda n: NGramModel(IDS, V, n),
    "vocab_size": lambda n: NGramModel(IDS, n, 2),
    "n": lambda n: ngram_overlap([[1, 2]], [[1, 2]], n),
    "budget": lambda n: search.halving_plan(n),
    "factor": lambda n: search.halving_plan(81, 1, n),
    "first_steps": lambda n: search.halving_plan(81, n),
    "budget of trials": lambda n: list(search.random_search(lambda rng: 1, lambda *a: (1.0, None), n, 1)),
    "steps of trials": lambda n: list(search.random_search(lambda rng: 1, lambda *a: (1.0, None), 9, n)),
    "steps": lambda n: curves.block_points(n, 1, 1),
    "block": lambda n: curves.block_points(8, n, 1),
    "eval_every": lambda n: curves.block_points(8, 1, n),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_count_that_is_none_is_refused_and_ends(name):
    """With a budget of inf the search for the largest plan had no end."""
    refuses(WHOLE[name], 0, -1, math.nan, math.inf, 2.5, None, "3", 10**30)


SHARES = {
    "level": lambda x: significance.bootstrap_interval(HALF, x),
    "level of a pair": lambda x: significance.paired_comparison(HALF, RIGHT, x),
    "power": lambda x: significance.items_needed(0.1, 0.2, power=x),
    "level of items": lambda x: significance.items_needed(0.1, 0.2, level=x),
    "difference": lambda x: significance.items_needed(x, 0.2),
    "disagreement": lambda x: significance.items_needed(0.1, x, paired=False),
    "false_alarms": lambda x: curves.tolerance_factor(np.random.default_rng(0).normal(size=(30, 2)), x),
}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_that_is_none_is_refused(name):
    refuses(SHARES[name], math.nan, math.inf, 1.5, 95)
    if name != "difference":  # there, the second model may be the better one
        refuses(SHARES[name], -0.1)


def test_a_loss_of_nan_stays_nan_and_a_huge_one_is_infinite():
    assert math.isnan(perplexity(math.nan))
    assert perplexity(math.inf) == perplexity(1e6) == perplexity(torch.tensor(1e6)) == math.inf
    assert math.isnan(bits_per_byte(math.nan, 1, 1))
    with pytest.raises(ValueError, match="is not negative"):
        perplexity(-3.2)
    for n_tokens, n_bytes in ((0, 5), (5, 0), (math.nan, 5), (-1, 5)):
        with pytest.raises(ValueError, match="at least one token and one byte"):
            bits_per_byte(1.0, n_tokens, n_bytes)


def test_the_rows_themselves():
    assert plain(torch.tensor([[1.0]])) == [[1.0]]
    assert number(torch.tensor(0.5, dtype=torch.bfloat16), "x") == 0.5
    assert number_row([-0.0]).tolist() == [0.0]
    assert whole(torch.tensor(3), "n") == whole(np.int8(3), "n") == 3
    assert class_row(["a", None], missing=True) == ["a", None]
    assert id_row(np.array([5, 1], dtype=np.uint16), 6).tolist() == [5, 1]
    assert text_list(np.array(["a", "b"])) == ["a", "b"]
