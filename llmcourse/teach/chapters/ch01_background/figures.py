"""The figures of `01_background`: counting against a trained model, where it wins, a scaling law."""

import numpy as np

from llmcourse.teach import plots


def compare(bits: dict, by_share: dict, sizes, model_bits: float) -> None:
    """Draw bits per byte over the order, from `bits[smoothing, order]`, and over the training tokens.

    `by_share[order]` holds one number for each of `sizes`; the dotted line is the model's.
    """
    _, axes = plots.new_figure(2, width=6.4, height=2.5, sharey=True)
    curves = {}
    for (name, order), value in bits.items():
        x, y = curves.setdefault(name, ([], []))
        x.append(order), y.append(value)
    y_label = "bits per byte of unseen plays"
    plots.lines(curves, "order n", y_label, "All of the text", axis=axes[0], marker="o")
    curves = {f"order {n}": (sizes, values) for n, values in by_share.items()}
    plots.lines(curves, "training tokens", "", "Kneser-Ney, more text", axis=axes[1], marker="o")
    axes[1].set_xscale("log")
    for axis in axes:
        axis.axhline(model_bits, color="black", linestyle=(0, (1, 2)))


def where(by_place: list, edges: list, curves: dict) -> None:
    """Draw the bits saved in each bin of places, with one standard error, and bits by what is known.

    `by_place` holds an array for each bin between two `edges`; `curves[split][who]` are (n, bits) pairs.
    """
    _, axes = plots.new_figure(3, width=6.8, height=2.4, width_ratios=(1.5, 1, 1))
    means, errors = ([f(g) for g in by_place] for f in (np.mean, lambda g: g.std() / len(g) ** 0.5))
    axes[0].errorbar(edges[:-1], means, errors, color=plots.COLORS[0], marker="o", markersize=3, capsize=2)
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[0].set(xscale="log", xlabel="tokens of context (start of bin)", ylabel="bits saved per token")
    axes[0].set_xticks(edges[:-1], [str(edge) for edge in edges[:-1]], fontsize=8)
    axes[0].minorticks_off()
    for axis, (name, both) in zip(axes[1:], curves.items(), strict=True):
        both = {who: np.transpose(points) for who, points in both.items()}
        y_label = "bits per token" if axis is axes[1] else ""
        plots.lines(both, name, y_label, axis=axis, marker="o", markersize=4)
        axis.set(ylim=(0, 15.5), xticks=both["model"][0])
        axis.get_legend().set_visible(axis is axes[1])


def law(loss, best_split, budgets) -> None:
    """Draw `loss(N, D)` over the parameters N for each budget of compute, with a dot at the best size."""
    axis = plots.new_figure(width=4.8, height=2.4)[1]
    sizes = np.logspace(8, 12.5, 60)
    curves = {
        f"{compute:.0e} operations": (sizes, [loss(N, compute / 6 / N) for N in sizes]) for compute in budgets
    }
    plots.lines(curves, "parameters", "loss (nats per token)", "Fixed compute (constants of 2024)", axis)
    for compute, line in zip(budgets, list(axis.lines), strict=True):
        N, D = best_split(compute)
        axis.plot(N, loss(N, D), "o", color=line.get_color(), markersize=5)
    axis.set(xscale="log", ylim=(1.8, 3.9))
    axis.legend(frameon=False, loc="upper left")
