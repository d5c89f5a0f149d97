"""ROUGE against rouge-score, and what it must be in cases that can be worked out."""

import difflib
import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from llmcourse.evaluate.metrics import rouge
from llmcourse.evaluate.rouge import (
    FUNCTION_WORDS,
    NAMES,
    lcs_length,
    rouge_l,
    rouge_n,
    rouge_scores,
    source_share,
    words,
)

WORDS = [
    "draw",
    "the",
    "chart",
    "of",
    "a",
    "line,",
    "and",
    "the",
    "Line's",
    "end.",
    "It's",
    "3-D",
    "(or",
    "2-D)",
    "été",
    "",
]


def random_texts(n, seed=0, most=12):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, most))) for _ in range(n)]


def test_every_score_is_that_of_rouge_score():
    hypotheses, references = random_texts(200), random_texts(200, seed=1)
    ours, scorer = rouge_scores(hypotheses, references), RougeScorer(NAMES)
    for i, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        theirs = scorer.score(reference, hypothesis)
        for name in NAMES:
            assert ours[name][i] == pytest.approx(theirs[name].fmeasure, abs=1e-12)
    means = rouge(hypotheses, references)
    for name in NAMES:
        assert means[name] == pytest.approx(ours[name].mean())


def test_precision_and_recall_are_those_of_rouge_score():
    scorer = RougeScorer(["rouge2", "rougeL"])
    for hypothesis, reference in zip(random_texts(50, 2), random_texts(50, 3), strict=True):
        theirs, pair = scorer.score(reference, hypothesis), (words(hypothesis), words(reference))
        assert rouge_n(*pair, 2) == pytest.approx(tuple(theirs["rouge2"]))
        assert rouge_l(*pair) == pytest.approx(tuple(theirs["rougeL"]))


def test_common_subsequence_is_the_longest_that_a_search_over_all_finds():
    rng = random.Random(0)
    for _ in range(60):
        a, b = (rng.choices("abc", k=rng.randint(0, 7)) for _ in range(2))
        subsequences = {""}
        for letter in a:
            subsequences |= {text + letter for text in subsequences}
        in_b = [s for s in subsequences if all(letter in it for it in [iter(b)] for letter in s)]
        assert lcs_length(a, b) == max(map(len, in_b)) == lcs_length(b, a)
        assert lcs_length(a, b) >= sum(
            m.size for m in difflib.SequenceMatcher(a=a, b=b).get_matching_blocks()
        )


def test_order_matters_to_rouge_l_and_repeats_count_once_each():
    assert rouge_n(["b", "a"], ["a", "b"]).f1 == 1
    assert rouge_l(["b", "a"], ["a", "b"]).f1 == 0.5
    assert rouge_n(["a", "a", "a"], ["a"]).precision == pytest.approx(1 / 3)
    assert (
        rouge_scores([""], ["a"])["rougeL"].tolist() == rouge_scores(["a"], [""])["rouge1"].tolist() == [0.0]
    )


def test_content_words_and_runs_of_words_that_the_source_has():
    source = "The chart is drawn in red."
    assert source_share(["A red chart."], [source]) == 1.0
    assert source_share(["A blue chart."], [source]) == 0.5
    assert source_share(["It is of the."], [source]) == 1.0
    assert source_share(["The chart is red"], [source], n=2).round(3) == 0.667
    assert np.array_equal(source_share([source] * 2, [source] * 2, n=3), [1, 1])
    assert all(word == word.lower() for word in FUNCTION_WORDS)


@pytest.mark.parametrize("function", [rouge_scores, source_share])
def test_rows_that_do_not_match_are_refused(function):
    with pytest.raises(ValueError, match="2 hypotheses and 1"):
        function(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one"):
        function([], [])
    with pytest.raises(ValueError, match=r"give a row, such as a list; a single text is \[text\]"):
        function("a", ["a"])


@pytest.mark.parametrize("reference", ["模型很好。", "Модель хорошая", "नमस्ते"])
def test_a_reference_that_would_score_0_against_itself_is_refused(reference):
    assert RougeScorer(["rouge1"]).score(reference, reference)["rouge1"].fmeasure == 0
    with pytest.raises(ValueError, match="no letter of a-z, and no other"):
        rouge_scores(["A model.", reference], ["A model.", reference])
    assert rouge([reference], [reference], language="zh")["rouge1"] == 1
