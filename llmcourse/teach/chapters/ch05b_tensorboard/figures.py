"""The figures of `05b_tensorboard`: what event files hold, drawn from what was read back."""

import matplotlib.pyplot as plt
import numpy as np

from llmcourse.teach import plots

POWERS = np.arange(-11, 1.01, 0.25)


def scalars(read: dict) -> None:
    """Draw losses, learning rate, gradient norm and speed of one run, as `read_scalars` returns them."""
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 3.8), layout="constrained")
    losses = {"training": read["loss/train"], "validation": read["loss/validation"]}
    plots.lines(losses, "step", "loss (nats per token)", axis=axes[0, 0])
    tags = ("learning_rate", "gradient_norm", "tokens_per_second")
    for axis, tag in zip(axes.flat[1:], tags, strict=True):
        plots.lines({tag: read[tag]}, "step", tag.replace("_", " "), axis=axis)
    axes[1, 1].set_ylim(bottom=0)
    figure.suptitle("A healthy run, read back from its event file")


def by_size(histogram) -> np.ndarray:
    """Return the share of the numbers whose size falls between neighbouring `POWERS` of ten."""
    middle = np.abs(histogram.edges[:-1] + histogram.edges[1:]) / 2
    sizes = np.log10(np.clip(middle, 10 ** POWERS[0], None))
    return np.histogram(sizes, POWERS, weights=histogram.counts)[0] / histogram.counts.sum()


def draw_sizes(axis, row: list) -> None:
    """Draw each histogram of `row` as a column of grey: the sizes of its numbers, dark where many are."""
    image = np.array([by_size(histogram) for histogram in row]).T
    extent = (0, len(row), POWERS[0], POWERS[-1])
    looks = dict(cmap="Greys", vmax=0.2, interpolation="nearest")
    axis.imshow(image, aspect="auto", origin="lower", extent=extent, **looks)
    axis.set_xticks([0.5, len(row) - 0.5], [row[0].step, row[-1].step])


def histograms(read: dict, name: str) -> None:
    """Draw the sizes of the weights and of the gradients of the matrix `name`, step by step."""
    _, axes = plots.new_figure(2, width=6.6, height=2.8, sharey=True)
    for axis, kind in zip(axes, ("weights", "gradients"), strict=True):
        draw_sizes(axis, read[f"{kind}/{name}"])
        axis.set(title=kind, xlabel="step")
    axes[0].set_ylabel("size, as a power of ten")


def smoothing(losses: dict, norms: dict) -> None:
    """Draw the first 60 values of each of `losses`, and beside them the (steps, values) of `norms`."""
    _, axes = plots.new_figure(2, width=6.6, height=2.6)
    curves = {name: (range(1, 61), curve[:60]) for name, curve in losses.items()}
    plots.lines(curves, "step", "training loss (nats)", "healthy, the start", axis=axes[0])
    axes[0].set_ylim(0, 9)
    plots.lines(norms, "step", "norm of the gradient", "rate too high", axis=axes[1])
    axes[1].set_yscale("log")


def sweep(grid, rates: list, sizes: list) -> None:
    """Draw the losses `grid` (sizes, rates) as a map with a number in each cell."""
    axis = plots.new_figure(width=6.4, height=2.2)[1]
    title = "Validation loss after 100 steps (nats)"
    labels = [f"{rate:g}" for rate in rates], [f"{size:.0f}" for size in sizes]
    plots.heatmap(grid, *labels, title, "learning rate", "batch size", axis=axis)
    for (i, j), value in np.ndenumerate(grid):
        color = "w" if value < grid.mean() else "k"
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)


def two_axes(by_step: dict, by_time: dict) -> None:
    """Draw the same smoothed losses over steps and over seconds."""
    _, axes = plots.new_figure(2, width=6.4, height=2.5, sharey=True)
    label = "training loss,\nsmoothed 0.8 (nats)"
    plots.lines(by_step, "step", label, axis=axes[0])
    plots.lines(by_time, "seconds since the first record", "", axis=axes[1])


def projector(flat, kinds: list[str]) -> None:
    """Draw vectors in two directions, `flat` (N, 2), with a colour and a mark for each of `kinds` (N,)."""
    axis = plots.new_figure(width=6.0, height=3.4)[1]
    for kind, color, marker in zip(sorted(set(kinds)), plots.COLORS, "ox^s+", strict=False):
        rows = [i for i, k in enumerate(kinds) if k == kind]
        axis.scatter(*flat[rows].T, s=9, color=color, marker=marker, label=kind, linewidths=0.8)
    axis.set(xlabel="first principal direction", ylabel="second")
    axis.set_title("1,000 token embeddings, flattened")
    axis.legend(frameon=False, fontsize=8)


def sick_runs(logs: dict, gradients: dict) -> None:
    """Draw a column for each run: losses, norm of the gradient, and the sizes of one matrix's gradients."""
    _, axes = plt.subplots(3, len(logs), figsize=(6.8, 5.0), layout="constrained", sharey="row")
    for column, (name, log) in zip(axes.T, logs.items(), strict=True):
        column[0].plot(*log["loss/train"], color="0.6", linewidth=0.8)
        column[0].plot(*log["loss/validation"], color=plots.COLORS[1], linestyle="--")
        column[1].plot(*log["gradient_norm"], color=plots.COLORS[0], linewidth=0.8)
        draw_sizes(column[2], gradients[name])
        column[0].set(title=name.replace("-", "\n", 1), ylim=(0, 12))
        column[1].set_yscale("log")
        column[2].set_xlabel("step")
        for axis in column:
            axis.tick_params(labelsize=7)
    labels = ("loss (nats)", "gradient norm", "gradient sizes, 10^x")
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)


def mystery(logs: dict) -> None:
    """Draw the losses and the norm of the gradient of logs without names, a column for each letter."""
    _, axes = plt.subplots(2, len(logs), figsize=(6.6, 3.4), layout="constrained", sharey="row")
    for column, (letter, log) in zip(axes.T, logs.items(), strict=True):
        x, dashed = log["step"], dict(color=plots.COLORS[1], linestyle="--")
        column[0].plot(x, log["loss/train"], color="0.5", label="training")
        column[0].plot(x, log["loss/validation"], label="validation", **dashed)
        column[1].semilogy(x, log["gradient_norm"], color=plots.COLORS[0])
        column[0].set(title=letter)
        column[1].set_xlabel("step")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("gradient norm")
    axes[0, 0].legend(frameon=False, fontsize=7)
