"""The figures of `03d_finetuning`: learning against forgetting, ranks, and levels of four bits."""

from llmcourse.teach import plots


def tradeoff(curves: dict, before: float) -> None:
    """Draw exact match against bits per byte: a line for each method, a point with deviations for each rate.

    `curves[method][rate]` holds the means of both and their deviations; `before` is the dashed line.
    """
    axis = plots.new_figure(width=6.6, height=4.0)[1]
    for i, (name, points) in enumerate(curves.items()):
        x, y, dx, dy = zip(*points.values(), strict=True)
        look = dict(color=plots.COLORS[i], linestyle=plots.STYLES[i], marker="osD^vX"[i])
        axis.errorbar(x, y, dy, dx, label=name, elinewidth=0.7, **look)
    axis.axhline(before, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlabel="exact match on unseen plays", ylabel="bits per byte of plain text", yscale="log")
    axis.set_yticks([2, 2.5, 3, 4, 5, 6, 8], ["2", "2.5", "3", "4", "5", "6", "8"])
    axis.set_yticks([], minor=True)
    axis.legend(frameon=False, fontsize=8, loc="center left")


def ranks(points: dict, trained: dict) -> None:
    """Draw exact match, with its deviation, for each rank of `points`; `trained` counts the parameters."""
    axis = plots.new_figure(width=5.6, height=2.8)[1]
    right, _, deviation, _ = zip(*points.values(), strict=True)
    axis.errorbar(range(len(points)), right, deviation, marker="o", color=plots.COLORS[0], capsize=3)
    axis.set_xticks(range(len(points)), [f"r = {rank}\n{trained[rank] / 1000:.0f} k" for rank in points])
    axis.set(xlabel="rank, and parameters trained", ylabel="exact match", ylim=(0, 1))
    axis.set_title("LoRA, learning rate 6e-3, three seeds")


def levels(values, kinds: dict) -> None:
    """Draw how normed weights `values` (N,) are spread, and the 16 levels of each of `kinds` over them."""
    axis = plots.new_figure(width=6.6, height=3.0)[1]
    axis.hist(values.numpy(), bins=101, color="0.8")
    heights = (0.9, 0.65, 0.4)
    for height, (name, marks), color in zip(heights, kinds.items(), plots.COLORS, strict=False):
        y = [height * axis.get_ylim()[1]] * len(marks)
        axis.plot(marks, y, "|", markersize=16, color=color, markeredgewidth=1.6)
        axis.annotate(name, (1.04, y[0]), color=color, va="center")
    axis.set(xlabel="weight divided by the largest of its block", ylabel="number of weights")
    axis.set_xlim(-1.05, 1.2)
