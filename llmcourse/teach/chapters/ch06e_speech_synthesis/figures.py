"""Figures of chapter 6e: from text to sound, where phonemes begin, and who understands what was said."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from llmcourse.speech.features import MelConfig
from llmcourse.teach import plots

LOOK = dict(aspect="auto", origin="lower", cmap="cividis", interpolation="nearest")


def _ends(durations: Sequence[int], config: MelConfig) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(durations)]) * config.hop / config.rate


def _strip(axis, names: Sequence[str], ends: np.ndarray, title: str) -> None:
    """Draw boxes from end to end with a name in each."""
    for i, (name, left, right) in enumerate(zip(names, ends, ends[1:], strict=False)):
        axis.axvspan(left, right, facecolor="0.93" if i % 2 else "0.82", edgecolor="white")
        axis.text((left + right) / 2, 0.5, name, ha="center", va="center", fontsize=8)
    axis.set(yticks=[], ylim=(0, 1))
    axis.set_ylabel(title, rotation=0, ha="right", va="center")
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.tick_params(axis="x", length=0)


def pipeline(
    words: Mapping[str, int],
    phonemes: Sequence[str],
    durations: Sequence[int],
    mel: Tensor,
    wave: Tensor,
    config: MelConfig,
) -> np.ndarray:
    """Draw a text on its way to sound: words, phonemes as long as they last, mel (T, M), and the wave (N,).

    `words` says of how many phonemes each consists; a silence stands before the first and after the last.
    """
    _, axes = plots.plt.subplots(
        4, 1, figsize=(6.8, 4.6), layout="constrained", sharex=True, height_ratios=(0.5, 0.5, 2, 1)
    )
    ends = _ends(durations, config)
    borders = np.cumsum([1, *words.values()])
    _strip(axes[0], list(words), ends[borders], "words")
    _strip(axes[1], ["" if p == "_" else p for p in phonemes], ends, "phonemes")
    seconds = ends[-1]
    axes[2].imshow(mel.T.numpy(), extent=(0, seconds, 0, config.n_mels), **LOOK)
    for end in ends[1:-1]:
        axes[2].axvline(end, color="white", linewidth=0.5)
    axes[2].set_ylabel("mel band")
    places = np.arange(len(wave)) / config.rate
    axes[3].plot(places[::4], wave.numpy()[::4], color=plots.COLORS[0], linewidth=0.4)
    axes[3].set(xlabel="seconds", ylabel="sample")
    axes[3].spines[["top", "right"]].set_visible(False)
    return axes


def cuts(
    features: Tensor, log_probs: Tensor, phonemes: Sequence[str], durations: Sequence[int], config: MelConfig
) -> np.ndarray:
    """Draw features (T, M) with the cuts between phonemes, and below the probability that no blank is there."""
    _, axes = plots.plt.subplots(
        3, 1, figsize=(6.8, 4.2), layout="constrained", sharex=True, height_ratios=(0.4, 2, 1)
    )
    ends = _ends(durations, config)
    _strip(axes[0], ["" if p == "_" else p for p in phonemes], ends, "phonemes")
    axes[1].imshow(features.T.numpy(), extent=(0, ends[-1], 0, config.n_mels), **LOOK)
    axes[1].set_ylabel("mel band")
    places = (np.arange(len(log_probs)) + 0.5) * config.hop / config.rate
    axes[2].fill_between(places, 1 - log_probs[:, 0].exp().numpy(), step="mid", color=plots.COLORS[0])
    axes[2].set(xlabel="seconds", ylabel="probability\nof a phoneme", ylim=(0, 1.05))
    axes[2].spines[["top", "right"]].set_visible(False)
    for axis in axes[1:]:
        for end in ends[1:-1]:
            axis.axvline(end, color="white" if axis is axes[1] else "0.6", linewidth=0.6)
    return axes


def mels(rows: Mapping[str, Tensor], config: MelConfig) -> np.ndarray:
    """Draw one mel (T, M) below the other, in the same colours."""
    _, axes = plots.plt.subplots(
        len(rows), 1, figsize=(6.2, 1.3 * len(rows) + 0.4), layout="constrained", sharex=True, squeeze=False
    )
    low, high = (
        edge(mel.min().item() if edge is min else mel.max().item() for mel in rows.values())
        for edge in (min, max)
    )
    for axis, (name, mel) in zip(axes[:, 0], rows.items(), strict=True):
        seconds = len(mel) * config.hop / config.rate
        image = axis.imshow(mel.T.numpy(), extent=(0, seconds, 0, config.n_mels), vmin=low, vmax=high, **LOOK)
        axis.set(ylabel="mel band")
        axis.set_title(name, fontsize=10, loc="left")
    axes[-1, 0].set_xlabel("seconds")
    axes[0, 0].figure.colorbar(image, ax=axes, label="log power")
    return axes[:, 0]


def lasting(aligned: Sequence[int], predicted: Sequence[int], config: MelConfig):
    """Draw predicted durations over aligned ones, in milliseconds; a larger point stands for more phonemes."""
    axis = plots.new_figure(width=4.2, height=3.6)[1]
    points, counts = np.unique(np.stack([aligned, predicted], axis=1), axis=0, return_counts=True)
    frame = 1000 * config.hop / config.rate
    axis.scatter(*(points.T * frame), s=4 + 3 * counts**0.7, color=plots.COLORS[0], alpha=0.5, linewidth=0)
    most = points.max() * frame
    axis.plot([0, most], [0, most], color="0.3", linestyle="--", linewidth=1)
    axis.set(xlabel="by the alignment, in ms", ylabel="predicted, in ms", title="Phonemes of the test")
    return axis


def understood(rates: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> np.ndarray:
    """Draw word error rates in % with intervals, a panel for each judge: rates[judge][system] is (rate, low, high)."""
    n_rows = -(-len(rates) // 2)
    _, axes = plots.plt.subplots(
        n_rows, 2, figsize=(6.8, 2.1 * n_rows), layout="constrained", sharey=True, squeeze=False
    )
    for axis, (judge, systems) in zip(axes.flat, rates.items(), strict=False):
        names, places = list(systems), range(len(systems))
        values, low, high = 100 * np.array([systems[name] for name in names]).T
        axis.errorbar(
            values, places, xerr=[values - low, high - values], fmt="o", color=plots.COLORS[0], capsize=3
        )
        for place, value in zip(places, values, strict=True):
            axis.annotate(
                f"{value:.1f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8
            )
        axis.set_yticks(places, names)
        axis.set_title(judge, fontsize=10)
        axis.set(ylim=(len(names) - 0.5, -0.8), xlim=(-2, max(10, 1.1 * high.max())))
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("word error rate in %")
    return axes
