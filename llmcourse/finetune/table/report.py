"""What a classifier is worth on rows that it never saw, beside what is cheaper: with intervals.

Dimensions: N test rows, K classes.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llmcourse.evaluate.significance import bootstrap_interval, paired_comparison
from llmcourse.finetune.table.columns import Table
from llmcourse.finetune.table.split import Split, units_of
from llmcourse.support.files import atomic_write

STRENGTHS = (1, 4, 16, 64)  # scikit-learn's C, chosen on the validation rows


@dataclass(frozen=True)
class Rival:
    """A baseline: its accuracy, and how far the classifier is above it, with interval and p-value (paired)."""

    name: str
    accuracy: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Report:
    """What was found on the test rows. `by_class` is (name, rows, precision, recall, F1); `sizes` are the
    rows of training, validation, test, and left out; intervals hold 95 %, over `units`."""

    accuracy: float
    low: float
    high: float
    macro_f1: float
    by_class: list[tuple[str, int, float, float, float]]
    rivals: list[Rival]
    sizes: dict[str, int]
    units: str
    validation_losses: list[float]
    notes: list[str]

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        percent = "{:.1%} correct ({:.1%} to {:.1%})".format
        out = [
            f"test: {self.sizes['test']:,} rows, {percent(self.accuracy, self.low, self.high)}, macro F1 {self.macro_f1:.3f}"
        ]
        for rival in self.rivals:
            points = (
                f"{100 * rival.difference:+.1f} points ({100 * rival.low:+.1f} to {100 * rival.high:+.1f})"
            )
            out.append(
                f"beside {rival.name}: {rival.accuracy:.1%}; the classifier is {points}, p = {rival.p_value:.4f}"
            )
        return out

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read what `save` wrote."""
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found["rivals"] = [Rival(**rival) for rival in found["rivals"]]
        found["by_class"] = [tuple(row) for row in found["by_class"]]
        return cls(**found)


def make_report(
    table: Table,
    split: Split,
    probabilities: np.ndarray,
    validation_losses: Sequence[float],
    notes: Sequence[str],
) -> Report:
    """Compare the classes of the highest `probabilities` (N, K) with the labels and with two baselines.

    The interval of a difference is paired: both are judged on the same rows, and whole groups, or all
    rows of a text, are drawn again together.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth = [table.labels[i] for i in split.test]
    said = [table.classes[k] for k in probabilities.argmax(1)]
    right = np.array([a == b for a, b in zip(said, truth, strict=True)], dtype=float)
    together = units_of(table)
    units = [together[i] for i in split.test]
    scores = precision_recall_fscore_support(truth, said, labels=table.classes, zero_division=0)
    rivals = []
    for name, guesses in {**majority(table, split), **counted_words(table, split)}.items():
        theirs = np.array([a == b for a, b in zip(guesses, truth, strict=True)], dtype=float)
        found = paired_comparison(right, theirs, groups=units)
        rivals.append(
            Rival(name, float(theirs.mean()), found.difference, found.low, found.high, found.p_value)
        )
    low, high = bootstrap_interval(right, groups=units)
    return Report(
        float(right.mean()), low, high, float(scores[2].mean()),
        [(name, int(n), float(p), float(r), float(f)) for name, p, r, f, n in zip(table.classes, *scores, strict=True)],
        rivals,
        {part: len(getattr(split, part)) for part in ("train", "validation", "test", "left_out")},
        "groups" if table.groups else "texts",
        [round(loss, 6) for loss in validation_losses],
        list(notes),
    )  # fmt: skip


def majority(table: Table, split: Split) -> dict[str, list[str]]:
    """Return the most common class of the training rows, for each test row."""
    (name, _), *_ = Counter(table.labels[i] for i in split.train).most_common(1)
    return {f"always {name!r}": [name] * len(split.test)}


def counted_words(table: Table, split: Split) -> dict[str, list[str]]:
    """Return what logistic regression says of the test rows: on TF-IDF of words and pairs of neighbours.

    Where texts are written without blanks, as Chinese is, characters take the place of words. The
    strength C is chosen on the validation rows.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = {part: [table.texts[i] for i in getattr(split, part)] for part in ("train", "validation", "test")}
    labels = {part: [table.labels[i] for i in getattr(split, part)] for part in ("train", "validation")}
    letters = "".join(texts["train"][:200])
    joined = sum("\u3040" <= c <= "\u9fff" for c in letters) > 0.3 * len(letters)
    pieces, kind = ("characters", "char") if joined else ("words", "word")
    least = 2 if len(texts["train"]) >= 1000 else 1
    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=least, sublinear_tf=True, analyzer=kind)
    try:
        x = counts.fit_transform(texts["train"])
    except ValueError:  # no word in any text
        return {}
    x_check, best = counts.transform(texts["validation"]), None
    for strength in STRENGTHS:
        fit = LogisticRegression(C=strength, max_iter=1000).fit(x, labels["train"])
        score = fit.score(x_check, labels["validation"])
        if best is None or score > best[0]:
            best = score, fit
    return {
        f"TF-IDF of {pieces} and logistic regression": list(best[1].predict(counts.transform(texts["test"])))
    }
