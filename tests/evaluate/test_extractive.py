"""TextRank against networkx and the eigenvector; the other baselines against their definitions."""

import networkx
import numpy as np
import pytest

from llmcourse.evaluate.extractive import best_sentence, first_words, lead, page_rank, textrank
from llmcourse.evaluate.rouge import rouge_scores

TEXT = "One is red. Two is green and long. Three is a blue one."


def random_weights(N, seed):
    rng = np.random.default_rng(seed)
    weights = rng.random((N, N)) * (rng.random((N, N)) < 0.6)
    return np.maximum(weights, weights.T) * (1 - np.eye(N))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("damping", [0.85, 0.5])
def test_rank_is_that_of_networkx(seed, damping):
    weights = random_weights(3 + seed * 3, seed)
    weights[seed] = weights[:, seed] = 0  # a sentence that nothing resembles
    graph = networkx.from_numpy_array(weights)
    theirs = networkx.pagerank(graph, alpha=damping, tol=1e-12, max_iter=1000)
    assert page_rank(weights, damping) == pytest.approx([theirs[i] for i in range(len(weights))], abs=1e-9)


def test_rank_is_the_eigenvector_of_the_walk_and_follows_directions():
    weights = np.random.default_rng(0).random((6, 6))
    walk = 0.85 * weights / weights.sum(1, keepdims=True) + 0.15 / 6
    values, vectors = np.linalg.eig(walk.T)
    vector = vectors[:, values.real.argmax()].real
    assert page_rank(weights) == pytest.approx(vector / vector.sum(), abs=1e-9)
    assert page_rank([[0, 1, 0], [0, 0, 1], [0, 1, 0]]).argmin() == 0


def test_rank_of_one_of_none_that_point_and_what_is_no_table():
    assert page_rank([[0.0]]).tolist() == [1.0]
    assert page_rank(np.zeros((3, 3))) == pytest.approx([1 / 3] * 3)
    for bad in ([[1, 2]], [[-1.0]], [], [[float("nan")]]):
        with pytest.raises(ValueError, match="are no"):
            page_rank(bad)
    with pytest.raises(ValueError, match="damping"):
        page_rank([[1.0]], damping=1.0)


def test_the_sentence_in_the_middle_wins_and_the_first_among_equals():
    vectors = {"One": [1, 0, 0], "Two": [0.7, 0.7, 0], "Thr": [0, 1, 0.1]}
    embed = lambda rows: np.array([vectors[row[:3]] for row in rows])  # noqa: E731
    assert textrank([TEXT, "", "One is."], embed) == ["Two is green and long.", "", "One is."]
    assert textrank(["One is red. Two is green."], embed) == textrank(["One is red. Two is green."], None)
    assert page_rank([[0, 0.3], [0.3, 0]]).tolist() == [0.5, 0.5]  # of two, the first, whatever their vectors
    assert textrank([""], None) == [""]


def test_lead_and_copy_take_the_beginning():
    assert lead([TEXT, "", "No stop"]) == ["One is red.", "", "No stop"]
    assert lead([TEXT], 2) == ["One is red. Two is green and long."]
    assert first_words([TEXT, ""], 4) == ["One is red. Two", ""]
    with pytest.raises(ValueError, match="n=0"):
        lead([TEXT], 0)


def test_no_sentence_beats_the_best_one():
    references = ["Two is a green one.", "A blue one."]
    best = rouge_scores(best_sentence([TEXT, TEXT], references), references)["rougeL"]
    for sentence in ("One is red.", "Two is green and long.", "Three is a blue one."):
        assert (rouge_scores([sentence] * 2, references)["rougeL"] <= best).all()
