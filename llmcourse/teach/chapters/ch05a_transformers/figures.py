"""The figures of chapter 5a."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmcourse.teach import plots


def layer_curve(by_fold: Sequence[Sequence[float]], majority: float) -> None:
    """Draw the accuracy of a probe on each layer: the mean of the folds as a line, each fold as a dash."""
    mean = np.mean(by_fold, axis=1)
    axis = plots.lines(
        {"linear probe": (range(len(mean)), mean)}, "layer (0 is the embedding)", "accuracy", marker="o"
    )
    axis.plot(by_fold, "_", color="0.5", markersize=9)
    axis.axhline(majority, color="black", linestyle=":")
    axis.annotate("always the more common class", (0, majority), (0, 4), textcoords="offset points")
    axis.set_title("Which layer knows the verdict? (dashes: the three folds)")
    plots.show()


def smooth(values: Sequence[float], width: int = 20) -> np.ndarray:
    """Return the means of `width` values in a row.

    >>> smooth([1, 2, 3, 4], width=2).tolist()
    [1.5, 2.5, 3.5]
    """
    return np.convolve(values, np.ones(width) / width, mode="valid")


def loss_curves(losses: Sequence[float], stored: Mapping[int, Sequence[float]], width: int = 20) -> None:
    """Draw the loss of each step of this run and its smoothed mean, over the smoothed stored runs in grey."""
    axis = plots.new_figure(height=2.8)[1]
    for i, row in enumerate(stored.values()):
        label = "stored, 3 seeds" if i == 0 else None
        axis.plot(range(width, len(row) + 1), smooth(row, width), color="0.55", linewidth=1, label=label)
    axis.plot(range(1, len(losses) + 1), losses, color="0.85", linewidth=1, label="each step")
    mean = smooth(losses, width)
    axis.plot(
        range(width, len(losses) + 1),
        mean,
        color=plots.COLORS[0],
        linewidth=2,
        label=f"mean of {width} steps",
    )
    axis.axhline(np.log(2), color="black", linestyle=":", label="even guess, ln 2")
    axis.set(xlabel="step", ylabel="loss (nats)", title="Fine-tuning: each review read once")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    plots.show()


def half_interval(right: np.ndarray) -> float:
    """Return half of a 95 % interval for the share of right answers, items taken as independent."""
    p = right.mean()
    return 1.96 * np.sqrt(p * (1 - p) / len(right))


def accuracies(right: Mapping[str, np.ndarray]) -> None:
    """Draw the accuracy of each method with its 95 % interval."""
    axis = plots.new_figure(height=0.7 + 0.28 * len(right))[1]
    for place, each in enumerate(right.values()):
        axis.errorbar(each.mean(), place, xerr=half_interval(each), fmt="o", color=plots.COLORS[0])
        axis.annotate(
            f"{each.mean():.3f}", (each.mean(), place), (0, 4), textcoords="offset points", ha="center"
        )
    axis.set_yticks(range(len(right)), list(right))
    axis.set(ylim=(len(right) - 0.5, -0.8), xlabel="accuracy on unseen films (bars: 95 %)")
    plots.show()


def accuracy_by_kind(right: Mapping[str, np.ndarray], kinds: Mapping[str, np.ndarray]) -> None:
    """Draw the accuracy of each model on each kind of review, with 95 % intervals."""
    axis = plots.new_figure(height=3.0)[1]
    for i, (name, each) in enumerate(right.items()):
        parts = [each[member] for member in kinds.values()]
        axis.errorbar(
            [part.mean() for part in parts],
            np.arange(len(parts)) + 0.2 * i - 0.1,
            xerr=[half_interval(part) for part in parts],
            fmt="os"[i],
            color=plots.COLORS[i],
            label=name,
        )
    axis.set_yticks(range(len(kinds)), [f"{kind}, n = {member.sum():,}" for kind, member in kinds.items()])
    axis.invert_yaxis()
    axis.set(xlim=(0.66, 0.93), xlabel="accuracy (bars: 95 %)", title="Where the mistakes are")
    axis.legend(frameon=False, loc="upper right")
    plots.show()
