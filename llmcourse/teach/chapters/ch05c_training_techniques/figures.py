"""The figures of `05c_training_techniques`: updates, a fair search, curves, what the same time buys."""

from statistics import mean

from llmcourse.teach import plots


def spectrum(gradient, adamw, muon) -> None:
    """Draw the singular values (falling) of a gradient and of two updates; the first two begin at 1."""
    number = range(1, len(gradient) + 1)
    curves = {
        "gradient, largest = 1": (number, gradient / gradient[0]),
        "AdamW's update, largest = 1": (number, adamw / adamw[0]),
        "orthogonalized, for Muon": (number, muon),
    }
    plots.lines(curves, "singular value number", "size")


def search(points: dict) -> None:
    """Draw a dot for each trial of each optimizer: `points[optimizer]` are (rate, loss) pairs."""
    axis = plots.new_figure()[1]
    for (optimizer, pairs), marker, color in zip(points.items(), "os", plots.COLORS, strict=False):
        axis.plot(*zip(*pairs, strict=True), marker, color=color, label=optimizer)
    axis.set(xscale="log", xlabel="learning rate of the hidden matrices", ylabel="loss on the tuning part")
    axis.legend(frameon=False)


def curves(runs: dict) -> None:
    """Draw smoothed training losses over steps and over seconds: `runs[name]` are (step, seconds, loss)."""
    _, axes = plots.new_figure(2, width=6.8, sharey=True)
    for axis, (i, unit) in zip(axes, enumerate(("step", "seconds")), strict=True):
        drawn = {name: (rows[i], rows[2]) for name, rows in runs.items()}
        plots.lines(drawn, unit, "training loss, smoothed", axis=axis)
    axes[1].get_legend().remove()
    axes[0].set_ylim(1.8, 4.3)


def same_time(race: dict, counted: float) -> None:
    """Draw the mean curves of the stored race over seconds, and the loss of the best n-gram model."""
    names = {"nanogpt": "nanoGPT's recipe", "strong": "strong: the same time", "fast": "fast"}
    drawn = {}
    for name, label in names.items():
        points = [list(zip(*row["curve"], strict=True)) for row in race[name]]
        seconds, losses = (
            [mean(column) for column in zip(*(p[i] for p in points), strict=True)] for i in (1, 2)
        )
        drawn[label] = (seconds, losses)
    labels = ("seconds of training", "loss (a piece of the tuning part)")
    axis = plots.lines(drawn, *labels, marker="o", markersize=3)
    axis.axhline(counted, color="0.5", linewidth=1)
    axis.annotate("best n-gram model", (20, counted + 0.02), color="0.4")
    axis.set_ylim(1.4, 2.6)
