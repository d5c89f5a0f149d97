"""The classifiers that chapter 2 compares: each is fitted on some labelled reviews and judged on others.

`tools/measure_pretraining.py` runs them over more labels and seeds than a page has time for.
"""

import copy
import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from llmcourse.data.manifest import course_data
from llmcourse.data.sources.reviews import Review
from llmcourse.finetune.classify import (
    GPTClassifier,
    accuracy,
    encoder_features,
    fit_classifier,
    linear_probe,
)
from llmcourse.model import GPT
from llmcourse.runtime import fast_dtype

CUT = 40  # tokens of a review that the course model reads
STEPS = {20: 20, 100: 40, 500: 100, 2000: 125}  # batches of 16, for so many labels


@dataclass(frozen=True)
class Reviews:
    """Labelled reviews: `texts`, `labels` (N,), and their first tokens for the course model."""

    texts: list[str]
    labels: np.ndarray
    rows: list[list[int]]

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, chosen: Sequence[int]) -> "Reviews":
        """Return the reviews with these numbers."""
        texts, rows = ([part[i] for i in chosen] for part in (self.texts, self.rows))
        return Reviews(texts, self.labels[list(chosen)], rows)


def reviews_for(tokenizer, reviews: Sequence[Review]) -> Reviews:
    """Return reviews with their labels, and with the first CUT tokens of each."""
    texts = [review.text for review in reviews]
    labels = np.array([review.label for review in reviews])
    return Reviews(texts, labels, [tokenizer.encode(text)[:CUT] for text in texts])


def draw(n_reviews: int, n_labels: int, seed: int) -> list[int]:
    """Return the numbers of the reviews whose labels are given: the same for every method.

    >>> draw(10, 3, seed=0) == draw(10, 3, seed=0)
    True
    """
    return random.Random(seed).sample(range(n_reviews), n_labels)


def tf_idf(train: Reviews, test: Reviews) -> np.ndarray:
    """Return (N,), where counted words and word pairs with logistic regression are right about `test`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=16, max_iter=1000)).fit(train.texts, train.labels)
    return model.predict(test.texts) == test.labels


def one_block(gpt: GPT, train: Reviews, test: Reviews, seed: int, pretrained: bool) -> float:
    """Return the accuracy of one block with a head, all weights trained, from the course model or from scratch."""
    torch.manual_seed(seed)
    body = GPT(replace(gpt.config, n_layers=1, dropout=0.0))
    if pretrained:
        body.load_state_dict(gpt.state_dict(), strict=False)  # embeddings, block 0, final norm
    model = GPTClassifier(body)
    fit_classifier(model, train.rows, train.labels.tolist(), STEPS[len(train)], seed=seed)
    return accuracy(model, test.rows, test.labels.tolist())


def lower_layers(encoder, n_layers: int = 4):
    """Return a copy of a BERT encoder without the layers above `n_layers`."""
    lower = copy.deepcopy(encoder)
    lower.encoder.layer = lower.encoder.layer[:n_layers]
    lower.config.num_hidden_layers = n_layers
    return lower


def random_weights(encoder, seed: int):
    """Return an encoder of the same shape, with random weights: the control."""
    torch.manual_seed(seed)
    return type(encoder)(encoder.config)


def features(encoder, tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Return (N, C): the mean over the tokens of the last layer of `encoder`."""
    return encoder_features(encoder, tokenizer, texts, dtype=fast_dtype())[:, -1].numpy()


def probe(x_train, y_train, x_test, y_test) -> np.ndarray:
    """Return (N,), where a linear probe on frozen features is right about the test texts."""
    return linear_probe(x_train, y_train).predict(x_test) == y_test


def stored_scores() -> dict[str, dict[int, list[float]]]:
    """Return {method: {labels: accuracies over seeds}}, as stored in data/pretraining/scores.csv.

    >>> sorted(stored_scores()["scratch"])
    [20, 100, 500, 2000]
    """
    scores: dict[str, dict[int, list[float]]] = {}
    with (course_data() / "pretraining" / "scores.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_n = scores.setdefault(row["method"], {})
            by_n.setdefault(int(row["labels"]), []).append(float(row["accuracy"]))
    return scores
