"""What is said next: an n-gram model of words as the prior of a prefix beam search.

Dimensions: K labels with the blank.
"""

from collections.abc import Callable, Sequence

import numpy as np

from llmcourse.ngrams import NGramModel
from llmcourse.speech.ctc import BLANK, Labels
from llmcourse.support.inputs import number, whole


def word_prior(
    texts: Sequence[Sequence[int]], n_labels: int, order: int = 3, weight: float = 0.5, bonus: float = 0.5
) -> Callable[[Labels, int], float]:
    """Return the function `prior` that `prefix_beam_search` takes, counted from `texts`, lists of labels from 1.

    It gives `weight` times the log-probability of the next label, plus `bonus`: without it a language model
    makes texts too short, since each word costs. `n_labels` is K; the blank stands for the borders of a text.
    Raises ValueError without a text, and for labels outside 1 to K - 1.

    >>> prior = word_prior([[1, 2], [1, 2], [1, 3]], n_labels=4, order=2, weight=1.0, bonus=0.0)
    >>> prior((1,), 2) > prior((1,), 3) > prior((2,), 3)
    True

    Source: Hannun et al. 2014, arXiv:1408.2873, sec. 3 (weight and bonus are its alpha and beta).
    """
    order = whole(order, "order", least=2)
    weight = number(weight, "weight", 0.0, 10.0, "a number from 0 to 10, such as 0.5")
    bonus = number(bonus, "bonus", -10.0, 10.0, "a number from -10 to 10, such as 0.5")
    border = (BLANK,) * (order - 1)
    if not texts or any(not 0 < label < n_labels for row in texts for label in row):
        raise ValueError(f"{len(texts)} texts: give at least one, of labels from 1 to {n_labels - 1}")
    ids = [label for row in texts for label in (*border, *row)] + list(border)
    counted, known = NGramModel(ids, n_labels, order), {}

    def prior(prefix: Labels, label: int) -> float:
        history = (*border, *prefix)[-len(border) :]
        if history not in known:
            known[history] = (weight * np.log(counted.next_probabilities(history)) + bonus).tolist()
        return known[history][label]

    return prior
