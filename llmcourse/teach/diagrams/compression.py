"""Pictures of smaller weights: a row cut into groups that share a scale, and two kept of every four."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from llmcourse.teach.diagrams.draw import SMALL, arrow, canvas, grid, label


def shared_scales(weights: Sequence[float], codes: Sequence[int], scales: Sequence[float], bits: int) -> Axes:
    """Draw a row of weights, the code of each below it, and the scale that a group of neighbours shares.

    There are as many groups as scales, all of one size. Raises ValueError for a row that is longer than
    the page, or does not split into so many groups.

    >>> axis = shared_scales([0.9, -0.4, 0.1, 0.3], [3, -1, 1, 3], [0.3, 0.1], bits=3)
    >>> [text.get_text() for text in axis.texts if text.get_text().startswith("scale")]
    ['scale 0.30', 'scale 0.10']
    """
    n, n_groups = len(weights), len(scales)
    if not (n_groups and n and n % n_groups == 0 and n <= 12 and len(codes) == n):
        raise ValueError(
            f"{n} weights, {len(codes)} codes, {n_groups} scales: at most 12 weights, in equal groups"
        )
    size, width, gap = n // n_groups, 0.42, 0.14
    axis = canvas(max(4.0, 1.3 + n * width + (n_groups - 1) * gap), 2.0)
    label(axis, 1.0, 1.52, "weights", SMALL, align="right")
    label(axis, 1.0, 0.77, f"codes, {bits} bits", SMALL, align="right")
    for g, scale in enumerate(scales):
        x, part = 1.1 + g * (size * width + gap), slice(g * size, (g + 1) * size)
        shade = ("query", "key")[g % 2]
        upper = grid(axis, x, 1.67, [weights[part]], (), (), (width, 0.3), "soft", "{:.2f}")
        signed = [f"{code:+d}" if code else "0" for code in codes[part]]
        lower = grid(axis, x, 0.92, [signed], (), (), (width, 0.3), shade)
        for above, below in zip(upper[0], lower[0], strict=True):
            arrow(axis, above.bottom, below.top, color="0.4")
        label(axis, x + size * width / 2, 0.42, f"scale {scale:.2f}", SMALL)
    label(
        axis, axis.get_xlim()[1] / 2, 1.87, "a code times the scale of its group stands for the weight", SMALL
    )
    label(axis, axis.get_xlim()[1] / 2, 0.13, "stored: the codes, and one scale for each group", SMALL)
    return axis


def kept_of_four(weights: Sequence[float], kept: Sequence[bool]) -> Axes:
    """Draw a row of weights with those that are kept in colour, and what is stored: values and places.

    Raises ValueError unless two of every four neighbours are kept, in a row of at most 12.

    >>> axis = kept_of_four([0.9, -0.4, 0.1, 0.3], [True, True, False, False])
    >>> [text.get_text() for text in axis.texts if text.get_text() in ("0", "1", "2", "3")]
    ['0', '1']
    """
    fours = [list(kept[i : i + 4]) for i in range(0, len(kept), 4)]
    if (
        len(weights) != len(kept)
        or not 4 <= len(kept) <= 12
        or any(len(four) != 4 or sum(four) != 2 for four in fours)
    ):
        raise ValueError(f"kept={list(kept)}: two of every four of {len(weights)} weights, at most 12")
    width, gap = 0.43, 0.16
    step = 4 * width + gap
    axis = canvas(max(4.2, 1.25 + len(fours) * step - gap), 1.95)
    for y, name in ((1.47, "weights"), (0.9, "values"), (0.6, "places")):
        label(axis, 1.0, y, name, SMALL, align="right")
    for i, four in enumerate(fours):
        x, places = 1.1 + i * step, [j for j in range(4) if four[j]]
        values = [weights[4 * i + j] for j in range(4)]
        shades = [["value" if k else "plain" for k in four]]
        upper = grid(axis, x, 1.62, [values], (), (), (width, 0.3), shades, "{:.2f}")[0]
        stored = [[f"{values[j]:.2f}" for j in places], places]
        lower = grid(axis, x + width, 1.05, stored, (), (), (width, 0.3), "value")
        for j, value in zip(places, lower[0], strict=True):
            arrow(axis, upper[j].bottom, value.top, color="0.4")
    below = "of every four neighbours, the two largest; a place takes 2 bits"
    label(axis, axis.get_xlim()[1] / 2, 0.2, below, SMALL)
    return axis
