"""The figures of chapter 7: where each tool stands, what licences ask, and a run that was taken up again."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from llmcourse.teach import plots
from llmcourse.teach.diagrams.draw import SMALL, arrow, box, canvas, grid, label

WIDTH = 6.8


def tools_of_a_project(stages: Mapping[str, tuple[str, str]]) -> Axes:
    """Draw the stages of a project in a row, the library of each above, what the course wrote by hand below.

    stages: name -> (library, module of the course).
    """
    axis = canvas(WIDTH, 1.75)
    step = (WIDTH - 0.1) / len(stages)
    last = None
    for i, (stage, (library, own)) in enumerate(stages.items()):
        x = 0.05 + step * (i + 0.5)
        here = box(axis, x, 0.88, stage, width=step - 0.16, height=0.36, fill="query", size=SMALL)
        above = box(axis, x, 1.38, library, width=step - 0.03, height=0.4, fill="key", size=SMALL)
        below = box(axis, x, 0.38, own, width=step - 0.03, height=0.4, fill="soft", size=SMALL)
        axis.plot([x, x], [here.top[1], above.bottom[1]], color="0.5", linewidth=0.8)
        axis.plot([x, x], [here.bottom[1], below.top[1]], color="0.5", linewidth=0.8)
        if last:
            arrow(axis, last.right, here.left)
        last = here
    label(axis, 0.05, 1.67, "the library that others use", SMALL, align="left")
    label(axis, 0.05, 0.09, "what this course wrote by hand", SMALL, align="left")
    return axis


def licence_grid(licences: Sequence) -> Axes:
    """Draw one row for each licence: what it allows (yes, no), and what it asks in return (yes or a dash)."""
    axis = canvas(WIDTH, 0.27 * len(licences) + 0.62)
    allowed, asked = ("sell", "pass on"), ("keep notice", "same terms", "rules of use", "threshold")
    values, fills = [], []
    for licence in licences:
        may, must = (
            [getattr(licence, name.replace(" ", "_")) for name in names] for names in (allowed, asked)
        )
        values.append(["yes" if x else "no" for x in may] + ["yes" if x else "-" for x in must])
        fills.append(["value" if x else "soft" for x in may] + ["key" if x else "plain" for x in must])
    top = 0.27 * len(licences) + 0.1
    rows = [f"{licence.name} ({licence.kind})" for licence in licences]
    cells = grid(axis, 2.12, top, values, rows, [*allowed, *asked], cell=(0.775, 0.27), fills=fills)
    for first, end, text in ((0, 1, "it allows to"), (2, 5, "it asks for")):
        label(axis, (cells[0, first].x + cells[0, end].x) / 2, top + 0.34, text, weight="bold")
    return axis


def restarted_run(curves: Mapping[str, tuple[Sequence, Sequence]]) -> None:
    """Draw, side by side, what a viewer shows of a run that went on at an earlier step: name -> (steps, losses)."""
    _, axes = plots.new_figure(len(curves), width=6.2, height=1.9, sharey=True)
    for axis, (name, (steps, losses)) in zip(axes, curves.items(), strict=True):
        axis.plot(steps, losses, marker="o", markersize=3, color=plots.COLORS[0])
        axis.set_title(name, fontsize=9)
        axis.set(xlabel="step", xticks=range(0, max(steps) + 1, 4))
    axes[0].set_ylabel("loss")
    plots.show()
