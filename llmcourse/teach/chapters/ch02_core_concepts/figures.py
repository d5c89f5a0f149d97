"""The figures of chapter 2."""

from collections.abc import Mapping, Sequence

import numpy as np

from llmcourse.teach import plots


def mask_squares(masks: Mapping[str, object]) -> None:
    """Draw masks (T, T) as squares: rows are positions that look, dark cells what they may look at."""
    _, axes = plots.new_figure(len(masks), width=6.8, height=2.7)
    for axis, (title, mask) in zip(axes, masks.items(), strict=True):
        T = len(mask)
        look = dict(cmap="Greys", vmin=0, vmax=1.6, edgecolors="0.75", linewidth=0.5)
        axis.pcolormesh(range(T), range(T), mask.float(), shading="nearest", **look)
        axis.set(title=title, xlabel="looked at", xticks=range(T), yticks=range(T))
        axis.set(aspect="equal", ylim=(T - 0.5, -0.5))
    axes[0].set_ylabel("position that looks\n(dark: may look)")
    plots.show()


def labels_curve(
    stored: Mapping[str, Mapping[int, Sequence[float]]], live: Mapping[str, Sequence[float]], always: float
) -> None:
    """Draw accuracy over the number of labels, with the spread over draws; crosses are this run, at 100 labels."""
    axis = plots.new_figure(height=3.8)[1]
    looks = zip(stored.items(), plots.COLORS, plots.STYLES, strict=False)
    for k, ((method, by_n), color, style) in enumerate(looks):
        middle = [np.mean(values) for values in by_n.values()]
        spread = [np.std(values, ddof=1) if len(values) > 1 else 0 for values in by_n.values()]
        shift = 1.05 ** (k - 2)  # side by side, so that none hides another
        look = dict(color=color, linestyle=style, marker="o", markersize=4, capsize=3, label=method)
        axis.errorbar([n * shift for n in by_n], middle, spread, **look)
        cross = dict(marker="x", color=color, markersize=8, markeredgewidth=2)
        axis.plot(100 * shift, np.mean(live[method]), **cross)
    axis.axhline(always, color="0.7", zorder=0, label="always fresh")
    counts = list(stored["TF-IDF"])
    axis.set(xscale="log", xlabel="labelled reviews (log scale)", ylabel="accuracy on unseen films")
    axis.set_xticks(counts, [f"{n:,}" for n in counts])
    axis.minorticks_off()
    axis.set_title("What pretraining buys (bars: deviation over ten draws; crosses: this run)", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    plots.show()
