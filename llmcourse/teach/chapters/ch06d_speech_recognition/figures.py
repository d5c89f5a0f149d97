"""Figures of chapter 6d: sound, what a recognizer sees of it, and what it makes of that."""

import numpy as np
from torch import Tensor

from llmcourse.speech.features import MelConfig
from llmcourse.teach import plots


def sound(samples: np.ndarray, power: Tensor, features: Tensor, config: MelConfig) -> np.ndarray:
    """Draw a wave (N,), its spectrogram (T, F) and its log-mel features (T, M), one below the other."""
    figure, axes = plots.plt.subplots(3, 1, figsize=(6.6, 5.4), layout="constrained", sharex=True)
    seconds = len(samples) / config.rate
    axes[0].plot(
        np.arange(len(samples))[::4] / config.rate, samples[::4], color=plots.COLORS[0], linewidth=0.4
    )
    axes[0].set_ylabel("sample")
    axes[0].spines[["top", "right"]].set_visible(False)
    look = dict(aspect="auto", origin="lower", cmap="cividis", interpolation="nearest")
    image = axes[1].imshow(
        power.clamp(min=1e-6).log().T.numpy(), extent=(0, seconds, 0, config.rate / 2000), **look
    )
    axes[1].set_ylabel("frequency in kHz")
    figure.colorbar(image, ax=axes[1], label="log power")
    image = axes[2].imshow(features.T.numpy(), extent=(0, seconds, 0, config.n_mels), **look)
    axes[2].set(ylabel="mel band", xlabel="seconds")
    figure.colorbar(image, ax=axes[2], label="log power")
    return axes


def despair(rows: list[tuple[int, float, float, float]]) -> np.ndarray:
    """Draw by step the loss, and the share of blank frames beside the word error rate.

    `rows` are (step, loss, share of blanks, word error rate).
    """
    steps, losses, blanks, errors = zip(*rows, strict=True)
    _, axes = plots.new_figure(2, width=6.8, height=2.8)
    plots.lines({"training loss": (steps, losses)}, "step", "nats per word", axis=axes[0], marker=".")
    curves = {"frames with a blank": (steps, blanks), "word error rate": (steps, errors)}
    plots.lines(curves, "step", "share", axis=axes[1], marker=".")
    axes[0].set(title="Loss", ylim=(0, 4))
    axes[1].set(title="What it writes", ylim=(-0.03, 1.05))
    return axes


def spikes(
    features: Tensor, log_probs: Tensor, labels: tuple[str, ...], text: str, seconds: float
) -> np.ndarray:
    """Draw features (T, M), and over them in time the probability of each word of `text` and of the blank."""
    _, axes = plots.plt.subplots(2, 1, figsize=(6.6, 4.0), layout="constrained", sharex=True)
    axes[0].imshow(
        features.T.numpy(),
        aspect="auto",
        origin="lower",
        cmap="cividis",
        extent=(0, seconds, 0, features.shape[1]),
    )
    axes[0].set(ylabel="mel band", title=f"“{text}”")
    places = (np.arange(len(log_probs)) + 0.5) * seconds / len(log_probs)
    shown = log_probs.exp().numpy()
    axes[1].plot(places, shown[:, 0], color="0.6", linestyle=":", label="blank")
    for word, color, style in zip(
        dict.fromkeys(text.split()), plots.COLORS * 2, plots.STYLES * 2, strict=False
    ):
        axes[1].plot(places, shown[:, labels.index(word) + 1], color=color, linestyle=style, label=word)
    axes[1].set(xlabel="seconds", ylabel="probability", ylim=(-0.03, 1.05))
    axes[1].spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def noise(curves: dict[str, tuple[list, list]], clean: float, mixed: dict[str, float], snr: float):
    """Draw the word error rate over the level of each kind of noise; stars: mixed as waves, at `snr` dB."""
    axis = plots.lines(curves, "signal-to-noise ratio in dB", "word error rate", marker=".")
    for (kind, value), color in zip(mixed.items(), plots.COLORS, strict=False):
        axis.plot([snr], [value], "*", color=color, markersize=11, label=f"{kind}, mixed as waves")
    axis.axhline(clean, color="0.6", linewidth=0.8)
    axis.text(0, clean, "clean", ha="left", va="bottom", fontsize=9, color="0.3")
    axis.set(ylim=(0, None), title="How much noise it bears")
    axis.legend(frameon=False, fontsize=8)
    return axis


def voices(errors: dict[str, float], mean: float):
    """Draw the word error rate of each voice, the worst first, and the mean over words."""
    ordered = dict(sorted(errors.items(), key=lambda pair: -pair[1]))
    axis = plots.bars({k: 100 * v for k, v in ordered.items()}, "word error rate in %", format="{:.1f}")
    axis.axvline(100 * mean, color="0.3", linestyle="--", linewidth=1)
    axis.set_title(f"By voice; dashed: all words, {100 * mean:.1f} %")
    return axis


def remedies(rates: dict[str, list[float]]):
    """Draw the word error rates of ways to train, one below the other; dots are seeds, bars their mean."""
    means = {what: 100 * sum(values) / len(values) for what, values in rates.items()}
    axis = plots.bars(means, "word error rate in %", format="")
    for place, (mean, values) in enumerate(zip(means.values(), rates.values(), strict=True)):
        axis.plot([100 * value for value in values], [place] * len(values), "o", color="0.2", markersize=4)
        axis.text(100 * max(values) + 2, place, f"{mean:.0f}", va="center")
    axis.set_title("Strings of ten recordings of a person")
    return axis
