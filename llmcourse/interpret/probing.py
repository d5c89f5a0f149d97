"""Linear probes: what a layer's states can tell, and whether it is the states or the probe that knows.

A probe that answers well may only have learned which words have which label. Two remedies: a control task,
random labels that belong to word types, which shows how much the probe can learn by heart; and test words
that were not trained on, where nothing learned by heart helps.

Dimensions: N tokens, C width of the features, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmcourse.support.inputs import class_row, number, whole


class LinearProbe:
    """Least squares on standardized features, one column a class: a closed form, so that many can be fitted.

    Source: Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, sec. 4.2; with the
    penalty `ridge` on the weights it is scikit-learn's RidgeClassifier.
    """

    def __init__(self, features: Tensor, labels, ridge: float = 1.0):
        x, labels = _features(features), np.asarray(class_row(labels))
        number(ridge, "ridge", 0, wanted="a penalty that is not negative, such as 1")
        if len(x) != len(labels):
            raise ValueError(f"{len(x)} tokens but {len(labels)} labels: each token needs one label")
        self.classes, targets = np.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise ValueError(f"all {len(labels)} labels are the same: a probe needs examples of two classes")
        self.mean, self.scale = x.mean(dim=0), x.std(dim=0, correction=0)
        self.scale[self.scale == 0] = 1.0
        x = (x - self.mean) / self.scale  # (N, C)
        y = torch.eye(len(self.classes), dtype=x.dtype)[torch.from_numpy(targets)]  # (N, K)
        self.bias = y.mean(dim=0)
        gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
        try:
            self.weight = torch.linalg.solve(gram, x.T @ (y - self.bias))  # (C, K)
        except torch.linalg.LinAlgError as error:
            raise ValueError(
                f"ridge={ridge} leaves the weights open: some of {x.shape[1]} features follow from others; take 1"
            ) from error

    def predict(self, features: Tensor) -> np.ndarray:
        """Return the class (N,) of each row of features (N, C)."""
        x = (_features(features) - self.mean) / self.scale
        return self.classes[(x @ self.weight + self.bias).argmax(dim=1).numpy()]

    def accuracy(self, features: Tensor, labels) -> float:
        """Return the share of features (N, C) that get their label."""
        found, labels = self.predict(features), np.asarray(class_row(labels))
        if len(found) != len(labels):
            raise ValueError(f"{len(found)} tokens but {len(labels)} labels: each token needs one label")
        return float((found == labels).mean())


def _features(features: Tensor) -> Tensor:
    x = torch.as_tensor(features).detach().cpu().double()
    if x.dim() != 2 or not len(x) or not x.isfinite().all():
        raise ValueError(f"features of {tuple(x.shape)}: give finite numbers (N, C), a row for each token")
    return x


def control_labels(types, n_classes: int = 2, seed: int = 0) -> np.ndarray:
    """Return a random class for each token (N,), the same for all tokens of one type; classes are equally likely.

    Nothing but the type tells the label. Each type is drawn by itself: a draw that made classes exactly equal
    would let the labels of the training types say something of the others.

    >>> control_labels(["to", "be", "or", "not", "to", "be"], seed=1).tolist()
    [1, 0, 1, 1, 1, 0]

    Source: Hewitt & Liang 2019, arXiv:1909.03368, sec. 2.
    """
    unique, inverse = np.unique(np.asarray(types), return_inverse=True)
    return np.random.default_rng(seed).integers(whole(n_classes, "n_classes", 2), size=len(unique))[inverse]


def capped(types, most: int, seed: int = 0) -> np.ndarray:
    """Return the places, in their order, of at most `most` tokens of each type, chosen at random.

    Else a few frequent types decide: a comma alone is a token in fourteen of the plays.

    >>> len(capped([7, 7, 7, 8], most=2))
    3
    """
    types = np.asarray(types)
    order = np.random.default_rng(seed).permutation(len(types))
    by_type = order[np.argsort(types[order], kind="stable")]
    starts = np.r_[True, types[by_type][1:] != types[by_type][:-1]]
    nth = np.arange(len(types)) - np.maximum.accumulate(np.where(starts, np.arange(len(types)), 0))
    return np.sort(by_type[nth < whole(most, "most")])


def balanced(labels, seed: int = 0) -> np.ndarray:
    """Return the places, in their order, of equally many tokens of each class, as many as the rarest has.

    >>> balanced([0, 0, 1, 0, 1]).size
    4
    """
    labels = np.asarray(class_row(labels))
    classes, counts = np.unique(labels, return_counts=True)
    rng = np.random.default_rng(seed)
    return np.sort(
        np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), counts.min(), replace=False) for c in classes]
        )
    )


@dataclass(frozen=True)
class ProbeScores:
    """Accuracies of one layer's probes, from 0 to 1, on the same tokens."""

    majority: float  # what the most frequent class of training reaches on known words
    known: float  # the task, on words that were trained on, at other places
    control: float  # the control task on the same: what can be learned by heart
    new: float  # the task, on words that were not trained on
    control_new: float  # the control task on those: chance, whatever the features

    @property
    def selectivity(self) -> float:
        """How much better the task is done than the control task, both on known words."""
        return self.known - self.control


def probe(
    features: Tensor, labels, types, train=None, n_repeats: int = 20, seed: int = 0, ridge: float = 1.0
) -> ProbeScores:
    """Return how well a linear probe reads `labels` from features (N, C), and how well it does without meaning.

    `train` (N,) says which tokens are trained on, without it the first half; the others are tested. Let
    whole passages fall on one side. For "new" words, half of the types, drawn anew in each of
    `n_repeats`, are trained on and the others tested. Each repeat has a control task of its own, with as
    many classes as the task: on new words its accuracy is 1/K but for chance, some 1/√(repeats · types).
    Raises ValueError for fewer than two classes, and features that are not finite.

    Source: Hewitt & Liang 2019, arXiv:1909.03368, sec. 2 (control tasks, selectivity).
    """
    x, labels, types = (
        _features(features),
        np.asarray(class_row(labels)),
        np.asarray(class_row(types, "types")),
    )
    if not len(x) == len(labels) == len(types):
        raise ValueError(
            f"{len(x)} tokens, {len(labels)} labels, {len(types)} types: each token needs one of each"
        )
    train = np.arange(len(x)) < len(x) // 2 if train is None else np.asarray(train, dtype=bool)
    if train.shape != labels.shape:
        raise ValueError(f"train of {train.shape} for {len(x)} tokens: give True or False for each")
    values, n_classes, found = np.unique(types), len(np.unique(labels)), []
    if n_classes < 2:
        raise ValueError(f"all {len(labels)} labels are the same: a probe needs examples of two classes")
    if len(np.unique(labels[train])) < 2:
        raise ValueError(
            f"all {train.sum()} labels of training are the same: a probe needs examples of two classes"
        )
    known = ~train & np.isin(types, types[train])

    def accuracy(y, of_training, of_test) -> float:
        if not (of_training.any() and of_test.any()):
            raise ValueError(
                f"{len(values)} types, {train.sum()} tokens of training and {(~train).sum()} of test: too few for "
                "words in both, and new ones; give more text, or another `train`"
            )
        if len(np.unique(y[of_training])) == 1:  # of a few types: then there is one answer
            return float((y[of_test] == y[of_training][0]).mean())
        return LinearProbe(x[of_training], y[of_training], ridge).accuracy(x[of_test], y[of_test])

    for repeat in range(whole(n_repeats, "n_repeats")):
        rng = np.random.default_rng((seed, repeat))
        old = np.isin(types, rng.permutation(values)[: len(values) // 2])
        control = control_labels(types, n_classes, seed=rng.integers(2**32))
        apart = [accuracy(y, train & old, ~train & ~old) for y in (labels, control)]
        found.append((accuracy(control, train, known), *apart))
    control, new, control_new = np.mean(found, axis=0).tolist()
    classes, counts = np.unique(labels[train], return_counts=True)
    majority = float((labels[known] == classes[counts.argmax()]).mean())
    return ProbeScores(majority, accuracy(labels, train, known), control, new, control_new)
