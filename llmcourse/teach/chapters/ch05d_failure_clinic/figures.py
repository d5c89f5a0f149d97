"""The figures of chapter 5d that are no patient's chart."""

from collections.abc import Mapping, Sequence

from llmcourse.monitor.run_record import Run
from llmcourse.teach import plots


def healthy_curves(runs: Sequence[Run], levels: Mapping[str, float]) -> None:
    """Draw the training loss of healthy runs over the landmarks `levels`, and beside it the gradient norm."""
    _, axes = plots.new_figure(2, width=6.7, height=2.7)
    for axis, key, label in zip(
        axes, ("loss", "grad_norm"), ("training loss (nats)", "norm of the gradient"), strict=True
    ):
        curves = {
            f"seed {i}": ([s.step for s in run.steps], [getattr(s, key) for s in run.steps])
            for i, run in enumerate(runs, start=1)
        }
        plots.lines(curves, "step", label, axis=axis)
    axes[0].set_ylim(2.3, 4.55)
    for name, level in levels.items():
        axes[0].axhline(level, color="black", linewidth=0.8, linestyle=":")
        axes[0].text(0 if name == "pairs" else 60, level, name, fontsize=8, va="bottom")
    plots.show()


def loss_curves(losses: Mapping[str, Sequence[float]], title: str) -> None:
    """Draw the loss of each run over its steps."""
    curves = {name: (range(1, len(row) + 1), row) for name, row in losses.items()}
    plots.lines(curves, "step", "training loss (nats)", title)
    plots.show()
