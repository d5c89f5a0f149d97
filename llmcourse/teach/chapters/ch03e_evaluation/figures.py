"""The figures of chapter 3e, evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmcourse.evaluate.metrics import reliability
from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.teach import plots


def two_measures(measured: Mapping[str, tuple[float, float]], left: str, right: str) -> None:
    """Draw two values of each name as bars, side by side, each with an axis of its own."""
    _, axes = plots.new_figure(2, width=6.4, height=1.5)
    for i, label in enumerate((left, right)):
        plots.bars({name: pair[i] for name, pair in measured.items()}, label, axis=axes[i])
        axes[i].margins(x=0.2)
    axes[1].set_yticks([])
    plots.show()


def reliability_diagram(p_of: Mapping[str, Sequence], labels, n_bins: int) -> None:
    """Draw how often each classifier is right over how sure it is; `p_of` ends with p(1) of the test set."""
    axis = plots.new_figure(width=5.0, height=2.6)[1]
    axis.plot([0.5, 1], [0.5, 1], color="0.6", label="as sure as it is right")
    for i, (name, parts) in enumerate(p_of.items()):
        p = parts[-1]
        rows = reliability(np.maximum(p, 1 - p), (p > 0.5) == labels, n_bins)
        look = dict(marker="os"[i], color=plots.COLORS[i], linestyle=plots.STYLES[i], label=name)
        axis.plot([row[0] for row in rows], [row[1] for row in rows], **look)
    axis.set(xlabel="how sure (mean of the bin)", ylabel="share of right answers", title="Held-out films")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.show()


def interval_figure(samples: Mapping[str, Sequence], x_label: str, line: float) -> None:
    """Draw the mean of each sample with its 95 % bootstrap interval, and a dashed line at `line`."""
    axis = plots.new_figure(width=5.0, height=0.5 + 0.2 * len(samples))[1]
    for i, sample in enumerate(samples.values()):
        axis.plot(bootstrap_interval(sample), [i, i], color=plots.COLORS[0])
        axis.plot(np.mean(sample), i, "o", color=plots.COLORS[0])
    axis.set(yticks=range(len(samples)), yticklabels=list(samples), xlabel=x_label)
    axis.axvline(line, color="black", linestyle="--")
    axis.invert_yaxis()
    plots.show()


def suspects_by_n(suspects: Mapping[int, Sequence[float]], names: Sequence[str]) -> None:
    """Draw the share of suspected items of each kind over n, the words in a row that must agree."""
    shares = np.array(list(suspects.values())).T  # (kinds, sizes)
    curves = {name: (list(suspects), row) for name, row in zip(names, shares, strict=True)}
    axis = plots.new_figure(width=5.4, height=2.1)[1]
    plots.lines(curves, "n: words in a row", "share of items suspected", axis=axis)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.show()
