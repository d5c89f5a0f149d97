"""The figures of `04a_attention`."""

from matplotlib.axes import Axes

from llmcourse.teach import plots


def saturation(widths: list[int], plain, scaled) -> list[Axes]:
    """Draw the largest weight and the slope of the softmax over the width d, without and with the scale.

    plain, scaled: a pair (largest weight, slope) for each width.

    >>> axes = saturation([4, 16], [(0.34, 0.02), (0.62, 0.02)], [(0.16, 0.03), (0.16, 0.03)])
    >>> axes[1].get_ylabel()
    'mean slope p(1 − p)'
    """
    _, axes = plots.new_figure(2, width=6.8, height=2.8)
    for column, y_label in enumerate(("mean of the largest weight", "mean slope p(1 − p)")):
        curves = {
            name: (widths, [pair[column] for pair in pairs])
            for name, pairs in (("plain dot product", plain), ("divided by √d", scaled))
        }
        plots.lines(curves, "width d of query and key", y_label, axis=axes[column], marker="o")
        axes[column].set_xscale("log", base=2)
        axes[column].set_ylim(bottom=0)
    axes[1].get_legend().remove()  # the left one serves both
    axes[0].legend(frameon=False, loc="center right")
    return list(axes)


def one_head(weights, tokens: list[str], title: str) -> Axes:
    """Draw the (T, T) weights of one head, with the tokens at both edges.

    >>> one_head([[1.0, 0.0], [0.5, 0.5]], ["my", " love"], "layer 0, head 0").get_xlabel()
    'looked at'
    """
    shades = dict(cmap="Greys", vmin=0, vmax=1)
    return plots.heatmap(weights, tokens, tokens, title, "looked at", "looking", **shades)
