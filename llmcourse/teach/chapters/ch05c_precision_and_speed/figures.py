"""The figures of `05c_precision_and_speed`: formats, gradients, distances, and shares of the machine."""

import torch

from llmcourse.teach import plots


def formats(tiny, fraction_bits: dict) -> None:
    """Draw all numbers of a toy format, `tiny` (N,), and the gap to the next number of each real one."""
    _, axes = plots.new_figure(2, width=6.7, height=2.8)
    axes[0].vlines(tiny, 0, 1, color=plots.COLORS[0], linewidth=1)
    axes[0].set(xlabel="value", yticks=[], title="All positive numbers of a 6-bit float")
    gaps = {}
    for name, bits in fraction_bits.items():
        power = range(-40, 16 if name == "float16" else 20)
        gaps[name] = power, [max(p, -14 if name == "float16" else -126) - bits for p in power]
    labels = ("size of a number, log2", "gap to the next, log2", "How fine each format is")
    plots.lines(gaps, *labels, axis=axes[1])


def gradients(kinds: dict) -> None:
    """Draw how the sizes of each kind of gradients, without zeros, are spread, and float16's limits."""
    axis = plots.new_figure(width=6.8, height=3.0)[1]
    look = dict(bins=100, range=(-45, 2), density=True, histtype="stepfilled", alpha=0.6)
    for (name, gradient), color in zip(kinds.items(), plots.COLORS, strict=False):
        axis.hist(gradient.abs().log2().numpy(), **look, color=color, label=f"gradients of {name}")
    for power, style, what in ((-25, "-", "zero"), (-14, "--", "digits are lost")):
        axis.axvline(power, color="black", linestyle=style, label=f"float16: {what} to the left")
    axis.set(xlabel="size of a gradient, log2", ylabel="density", xlim=(-45, 22))
    axis.set_title("Gradients of the course model")
    axis.legend(frameon=False, loc="upper right")


def distances(by_name: dict, group: int) -> None:
    """Draw the means over `group` steps of distances (N,) from the float32 loss, on a logarithmic scale."""
    lines = {}
    for name, distance in by_name.items():
        means = distance.view(-1, group).mean(1)
        lines[name] = (torch.arange(1, len(means) + 1) * group, means)
    labels = ("step", "distance from the float32 loss", "Means of ten steps: 16 bits, another start")
    axis = plots.lines(lines, *labels)
    axis.set(yscale="log", ylim=(1e-6, 1))
    axis.legend(frameon=False, ncols=3, loc="upper center")


def utilization(shares: dict) -> None:
    """Draw the share of the peak over the tokens in a batch: `shares[width, rows]`, of 64 tokens a row."""
    lines = {}
    for (width, rows), share in shares.items():
        x, y = lines.setdefault(f"{width} wide", ([], []))
        x.append(rows * 64), y.append(100 * share)
    labels = ("tokens in a batch", "share of the peak (%)", "Small steps waste the machine")
    axis = plots.lines(lines, *labels, marker="o")
    axis.set(xscale="log", ylim=(0, 150 * max(shares.values())))
    axis.legend(frameon=False, ncols=2, loc="upper left")


def profiles(shares: dict) -> None:
    """Draw the share of the time of each group of operations, in a panel for each step of `shares`."""
    _, axes = plots.new_figure(2, width=6.7, height=2.9, sharey=True)
    for axis, (title, share) in zip(axes, shares.items(), strict=True):
        plots.bars(share, "share of the time (%)", title, axis=axis, format="{:.0f}")
        axis.set(xlim=(0, 110))
    axes[0].invert_yaxis()
