"""The figures of `05c_tuning`: starts, range tests, noise, batches, a bad gradient, regularization."""

from llmcourse.teach import plots


def spreads(measured: dict) -> None:
    """Draw the deviation of the stream and the norm of the gradient over the layers of each start.

    `measured[name]` holds both rows. Post-norm streams stand at 1 and are left out on the left.
    """
    figure, axes = plots.new_figure(2, width=6.8, height=3.6)
    drawn = [name for name in measured if not name.startswith("post, 0.02")]  # they are flat
    for name, color, style in zip(drawn, plots.COLORS, plots.STYLES, strict=True):
        for axis, values in zip(axes, measured[name], strict=True):
            if axis is axes[1] or name.startswith("pre"):
                axis.plot(range(1, len(values) + 1), values, color=color, linestyle=style, label=name)
    for axis, label in zip(axes, ("deviation of the stream", "gradient of a layer"), strict=True):
        axis.set(xlabel="layer", ylabel=label, yscale="log")
    below = dict(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.legend(*axes[1].get_legend_handles_labels(), **below)


def sweeps(raw, smoothed: dict) -> None:
    """Draw one range test as it is, and several smoothed: `smoothed[name]` are (rates, losses)."""
    axis = plots.new_figure(height=3.0)[1]
    axis.plot(raw.rates, raw.losses, color="0.75", label="80 steps, raw")
    plots.lines(smoothed, "learning rate", "loss (nats)", "Three range tests of one model", axis=axis)
    axis.set(xscale="log", ylim=(2.3, 6))


def grid(curves: dict, suggestions: dict) -> None:
    """Draw the loss at the end over the rate, and a dotted line at each rate that a range test suggests."""
    figure, axis = plots.new_figure(width=6.8, height=3.0)
    plots.lines(curves, "learning rate", "loss at the end (nats)", axis=axis, marker="o")
    for (steps, rates), color in zip(suggestions.items(), ("0.7", "0.4"), strict=True):
        for i, rate in enumerate(rates):
            label = None if i else f"lowest / 10,\ntest of {steps}"
            axis.axvline(rate, color=color, linestyle=":", label=label)
    axis.set(xscale="log", ylim=(2.4, 3.4))
    axis.get_legend().remove()
    figure.legend(loc="outside right upper", frameon=False)


def noise(moments, scales: dict, squares: dict) -> None:
    """Draw the noise scale over the steps for each seed, and its two parts for one of them."""
    _, axes = plots.new_figure(2, width=6.8, height=2.7)
    curves = {name: (moments, values) for name, values in scales.items()}
    plots.lines(curves, "step", "noise scale (sequences)", axis=axes[0], marker="o")
    curves = {name: (moments, values) for name, values in squares.items()}
    plots.lines(curves, "step", "squared norm", axis=axes[1], marker="o")
    ticks = (0.2, 0.5, 1, 2, 4)
    axes[1].set(yscale="log", yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks])
    axes[1].minorticks_off()


def batches(curves: dict, sizes, sequences, line, critical: float, loss: float) -> None:
    """Draw losses over steps, and the sequences read to `loss` over the batch, with the line fitted.

    `line` is (slope, intercept).
    """
    _, axes = plots.new_figure(2, width=6.8, height=3.0)
    plots.lines(curves, "steps", "loss (nats)", axis=axes[0])
    axes[0].set_xscale("log")
    (slope, intercept), end = line, 1.04 * max(sizes)
    axes[1].plot(sizes, sequences, "o", color=plots.COLORS[0], label="measured")
    straight = (0, end), (intercept, intercept + end * slope)
    axes[1].plot(*straight, color=plots.COLORS[1], linestyle="--", label="E_min + S_min·B")
    axes[1].axvline(critical, color="0.5", linestyle=":", label="critical batch")
    axes[1].set(xlabel="batch B", ylabel=f"sequences to a loss of {loss}", xlim=0, ylim=0)
    axes[1].legend(frameon=False, loc="lower right")


def clipping(moves: dict, first: int) -> None:
    """Draw update over weights from step `first` on: a panel for each optimizer, `moves[name, clip]`."""
    names = list(dict.fromkeys(name for name, _ in moves))
    _, axes = plots.new_figure(len(names), width=6.8, height=2.6, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        curves = {f"clip {c}": row[first:] for (n, c), row in moves.items() if n == name}
        curves = {c: (range(first, first + len(row)), row) for c, row in curves.items()}
        plots.lines(curves, "step", "", name, axis=axis)
    for axis in axes[1:]:
        axis.get_legend().remove()
    ticks = (0.005, 0.01, 0.02, 0.05)
    axes[0].set(ylabel="update / weights", yscale="log", ylim=(0.005, 0.09))
    axes[0].set(yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks])
    axes[0].minorticks_off()


def gains(by_text: dict) -> None:
    """Draw what each means gains, in a panel for each text: `by_text[text][means]` in nats."""
    _, axes = plots.new_figure(2, width=6.8, height=2.4, sharex=True, sharey=True)
    for axis, (name, gain) in zip(axes, by_text.items(), strict=True):
        drawn = axis.barh(list(gain), list(gain.values()), color=plots.COLORS[0])
        axis.bar_label(drawn, fmt="{:+.2f}", padding=3)
        axis.axvline(0, color="black", linewidth=1)
        axis.set(title=name, xlabel="nats gained over nothing", xlim=(-0.4, 0.6))
    axes[0].invert_yaxis()
