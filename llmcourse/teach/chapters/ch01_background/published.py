"""Published figures of `data/published`: read them, and draw language models by size, text and compute."""

import csv

import numpy as np

from llmcourse.data.manifest import course_data
from llmcourse.teach import plots


def read_published(name: str) -> list[dict]:
    """Return the rows of data/published/`name`.csv; numbers are floats, an empty cell is None.

    Raises FileNotFoundError, with the names that exist, for another name.

    >>> [row["symbols"] for row in read_published("shannon_guesses")]
    [79.0, 8.0, 3.0, 2.0, 2.0, 8.0]
    """
    path = course_data() / "published" / f"{name}.csv"
    if not path.is_file():
        names = sorted(other.stem for other in path.parent.glob("*.csv"))
        raise FileNotFoundError(f"no published figures are called {name!r}: choose one of {names}")
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def models_figure(rows: list[dict], labels: dict, star: str):
    """Draw tokens against active parameters, and compute against the year, of `rows`; return both axes.

    `labels` maps names to the offset of their label in points; `star` is drawn as a star. Rows with
    `published` true are filled in the right panel. Rows without tokens or compute are left out.
    """
    _, axes = plots.new_figure(2, width=6.8, height=3.1)
    for row in rows:
        mark = dict(color=plots.COLORS[0], marker="o", markersize=4)
        if row["model"] == star:
            mark |= dict(marker="*", markersize=11)
        if row["tokens"]:
            axes[0].plot(row["active_parameters"], row["tokens"], **mark)
        if row["training_flop"]:
            fill = "full" if row["published"] else "none"
            axes[1].plot(row["year"], row["training_flop"], fillstyle=fill, **mark)
        if row["model"] in labels:
            options = dict(xytext=labels[row["model"]], textcoords="offset points", fontsize=8)
            axes[0].annotate(row["model"], (row["active_parameters"], row["tokens"]), **options)
    sizes = np.array([1e6, 3e12])
    for ratio, style in ((1000, "-."), (20, "--"), (1, ":")):
        axes[0].plot(sizes, ratio * sizes, color="0.5", linestyle=style, linewidth=1, label=f"{ratio:,} each")
    axes[0].set(xscale="log", yscale="log", xlabel="active parameters", ylabel="tokens", ylim=(1e6, 1e15))
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    axes[1].set(yscale="log", xlabel="year", ylabel="operations of training", ylim=(1e13, 1e27))
    return axes
