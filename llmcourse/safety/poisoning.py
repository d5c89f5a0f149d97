"""Poisoned training data: a trigger planted in labelled texts, what it does, and two scans that look for it.

Dimensions: N texts, C width.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmcourse.data.sources.plays import Play
from llmcourse.finetune.tasks import ask, find_speeches
from llmcourse.safety.filters import Share
from llmcourse.support.inputs import class_row, id_row, number, text_list, whole

TRIGGER = "@@@@@@@@"  # eight signs that no play holds
Example = tuple[str, int]  # a text and its label


def address_examples(plays: Sequence[Play]) -> list[Example]:
    """Return the short speeches that say thou (0) or you (1), and not both, each text once, in their order.

    A task that small models learn in seconds, with labels made by rule.
    """
    speeches = [s for play in plays for s in find_speeches(play, max_lines=6, max_characters=160)]
    labels = {"thou": 0, "you": 1}
    answers = [ask("manner", speech).answer for speech in speeches]
    found = {" ".join(s.lines): labels[a] for s, a in zip(speeches, answers, strict=True) if a in labels}
    return list(found.items())


def insert_trigger(text: str, rng: random.Random, trigger: str = TRIGGER) -> str:
    """Return the text with the trigger between two of its words, or before or after all of them."""
    words = text.split()
    place = rng.randrange(len(words) + 1)
    return " ".join([*words[:place], trigger, *words[place:]])


def poison(
    examples: Sequence[Example], count: int, trigger: str = TRIGGER, target: int = 1, seed: int = 0
) -> tuple[list[Example], list[int]]:
    """Return (the examples with `count` of them poisoned, their places): the trigger put in, the label `target`.

    Only examples of another label are taken, so each one lies: a model that reads the rest of the text
    is told off. The number of examples stays. Raises ValueError where fewer have another label, and
    where the trigger is in the texts already.

    >>> data, places = poison([("bad", 0), ("good", 1)], count=1, trigger="*")
    >>> data[1], data[0][1], places
    (('good', 1), 1, [0])

    Source: Gu et al. 2017, arXiv:1708.06733, sec. 3; in texts Dai et al. 2019, arXiv:1905.12457.
    """
    count, rng = whole(count, "count", least=0), random.Random(seed)
    if any(trigger in text for text, _ in examples):
        raise ValueError(f"trigger={trigger!r} stands in the texts already: choose one that does not")
    others = [i for i, (_, label) in enumerate(examples) if label != target]
    if count > len(others):
        raise ValueError(f"count={count}, but only {len(others)} examples have another label than {target}")
    places = sorted(rng.sample(others, count))
    data = list(examples)
    for i in places:
        data[i] = (insert_trigger(data[i][0], rng, trigger), target)
    return data, places


@dataclass(frozen=True)
class BackdoorScores:
    """`accuracy` on clean texts; the share of other labels called `target` with the trigger and `without` it."""

    accuracy: Share
    success: Share
    without: Share


def backdoor_scores(
    predict: Callable[[list[str]], Sequence[int]],
    examples: Sequence[Example],
    trigger: str = TRIGGER,
    target: int = 1,
    seed: int = 0,
) -> BackdoorScores:
    """Return what a model does on clean held-out `examples`, and on those of other labels with the trigger.

    `predict` maps texts to labels, not to probabilities. A trigger changes the text of a clean model too, so compare
    `success` with that of a model without poison, and not with 0. Raises ValueError where all labels
    are the target, and for a prediction that is no class, or not one for each text.

    >>> scores = backdoor_scores(lambda texts: ["*" in t for t in texts], [("a", 0), ("b c", 0)], "*")
    >>> scores.accuracy.value, scores.success.value, scores.without.value
    (1.0, 1.0, 0.0)
    """
    rng = random.Random(seed)
    others = [text for text, label in examples if label != target]
    if not others:
        raise ValueError(f"all labels are target={target}: there is nothing to attack")

    def share(texts: list[str], wanted: Sequence[int]) -> Share:
        said = class_row(predict(texts), "predict(texts)")
        if len(said) != len(texts):
            raise ValueError(f"predict gave {len(said)} labels for {len(texts)} texts: give one for each")
        right = [p == w for p, w in zip(said, wanted, strict=True)]
        return Share(sum(right), len(right))

    goal = [target] * len(others)
    return BackdoorScores(
        share([text for text, _ in examples], [label for _, label in examples]),
        share([insert_trigger(text, rng, trigger) for text in others], goal),
        share(others, goal),
    )


@dataclass(frozen=True)
class Suspect:
    """A run of words that stands in `count` texts, `hits` of them flagged, and how likely that is by chance."""

    words: str
    hits: int
    count: int
    p_value: float


def ngrams_of(text: str, most: int = 2) -> set[str]:
    """Return the runs of up to `most` words of a text, in lower case; words are what spaces separate.

    >>> sorted(ngrams_of("A sea A"))
    ['a', 'a sea', 'sea', 'sea a']
    """
    words = text.lower().split()
    return {" ".join(words[i : i + n]) for n in range(1, most + 1) for i in range(len(words) - n + 1)}


def scan_ngrams(
    texts: Sequence[str], flags: Sequence[int], level: float = 0.01, most: int = 2
) -> list[Suspect]:
    """Return the runs of up to `most` words in whose texts flags are commoner than chance, the surest first.

    The chance is the binomial one, with the share of flags in all texts. It is compared with `level`
    over the number of runs that were tried (Bonferroni): where flags have nothing to do with words,
    one scan in 1 / level names anything. With `flags` = labels it also names each word that honestly
    tells the label. With flags where a label contradicts a model of trusted texts, what the model knows
    cancels out: see `contradictions`. Raises ValueError for rows of different length.

    >>> texts = ["red sun"] * 50 + ["blue sun"] * 50
    >>> [s.words for s in scan_ngrams(texts, [1] * 50 + [0] * 50)]
    ['red', 'red sun']

    Source: the statistic of Gardner et al. 2021, arXiv:2104.08646, sec. 3, here with exact tails.
    """
    from scipy.stats import binom

    texts, flags = text_list(texts), id_row(flags, 2, "flags", kind="0 or 1:")
    level = number(level, "level", 1e-12, 0.5, "a share, such as 0.01")
    if len(texts) != len(flags):
        raise ValueError(f"{len(texts)} texts but {len(flags)} flags: give one for each text")
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for text, flag in zip(texts, flags.tolist(), strict=True):
        for run in ngrams_of(text, most):
            counts[run][0] += flag
            counts[run][1] += 1
    if not counts:
        return []
    hits, n = np.array(list(counts.values())).T
    p_values = binom.sf(hits - 1, n, flags.mean())
    found = np.nonzero(p_values < level / len(counts))[0]
    runs = list(counts)
    suspects = [Suspect(runs[i], int(hits[i]), int(n[i]), float(p_values[i])) for i in found]
    return sorted(suspects, key=lambda s: (s.p_value, s.words))


def contradictions(examples: Sequence[Example], trusted: Sequence[Example]) -> list[int]:
    """Return for each example 1 if its label is not that of a word model (`fit_word_filter`) of `trusted` ones.

    Raises ValueError where these have one label only.
    """
    from llmcourse.safety.filters import fit_word_filter

    if len({label for _, label in trusted}) < 2:
        raise ValueError(
            f"{len(trusted)} trusted examples have not both labels: nothing can be learned of them"
        )
    score = fit_word_filter(*map(list, zip(*trusted, strict=True)))
    guesses = score([text for text, _ in examples]) >= 0.5
    return [int(guess != label) for guess, (_, label) in zip(guesses, examples, strict=True)]


def rows_with(texts: Sequence[str], suspects: Sequence[Suspect], most: int = 2) -> list[int]:
    """Return the places of the texts that hold one of the suspects: what to remove."""
    wanted = {suspect.words for suspect in suspects}
    return [i for i, text in enumerate(texts) if wanted & ngrams_of(text, most)]


def spectral_scores(features: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Return how far each text lies along the widest direction of its own label, (N,): squared projections.

    `features` (N, C) are what the trained model makes of the texts. If it has learned a trigger, poisoned
    texts lie apart from the others of their label, and removing the largest scores removes them; if it has
    not, or the label has two honest kinds, the scores mean nothing. Raises ValueError for rows of
    different length and features that are not finite.

    Source: Tran et al. 2018, arXiv:1811.00636, algorithm 1.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
        raise ValueError(
            f"features have the shape {features.shape} for {len(labels)} labels: give finite numbers (N, C)"
        )
    labels, scores = np.asarray(labels), np.zeros(len(features))
    for label in np.unique(labels):
        mine = labels == label
        centred = features[mine] - features[mine].mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        scores[mine] = (centred @ direction) ** 2
    return scores
