"""Pictures of sizes: what changes in a wider model so that it learns like its base, and what one token reads."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from llmcourse.teach.diagrams.draw import MAX_WIDTH, SMALL, arrow, bars, box, canvas, label


def widths(base: int, width: int) -> Axes:
    """Draw a model of the base's width and a wider one, with what muP multiplies each part of the wider by.

    Raises ValueError unless the width is above the base's.

    >>> axis = widths(64, 256)
    >>> [text.get_text() for text in axis.texts if "1/4" in text.get_text()]
    ['rate × 1/4, deviation × 1/√4', 'logits × 1/4']
    """
    if not 0 < base < width:
        raise ValueError(f"base={base}, width={width}: the width must be above the base's")
    ratio = f"{width / base:g}"
    axis = canvas(6.6, 2.55)
    parts = {
        "embedding": ("query", "as it is"),
        "hidden matrices": ("key", f"rate × 1/{ratio}, deviation × 1/√{ratio}"),
        "output": ("value", f"logits × 1/{ratio}"),
    }
    for x, size, columns in ((1.15, 0.62, base), (3.3, 1.75, width)):
        label(axis, x, 2.32, f"width {columns}", SMALL)
        before = None
        for y, (name, (fill, _)) in zip((0.5, 1.15, 1.8), parts.items(), strict=True):
            drawn = box(axis, x, y, name if size > 1 else "", size, 0.4, fill, SMALL)
            if before is not None:
                arrow(axis, before.top, drawn.bottom)
            before = drawn
    for y, (_, told) in zip((0.5, 1.15, 1.8), parts.values(), strict=True):
        label(axis, 4.35, y, told, SMALL, align="left")
    label(
        axis, 3.3, 0.13, f"r = {width} / {base} = {ratio}: a hidden unit adds up r times as many terms", SMALL
    )
    return axis


def read_for_a_token(gigabytes: Mapping[str, Mapping[str, float]]) -> Axes:
    """Draw for each setting how many gigabytes one more token reads: a row of bars for each of its parts.

    Raises ValueError for more than four settings, or none.

    >>> axis = read_for_a_token({"bfloat16": {"layers": 1.2, "output": 0.3, "cache": 0.1}})
    >>> sorted(text.get_text() for text in axis.texts)
    ['0.10 GB', '0.30 GB', '1.20 GB', 'bfloat16', 'cache', 'layers', 'output']
    """
    if not 1 <= len(gigabytes) <= 4:
        raise ValueError(f"{len(gigabytes)} settings: one to four have room")
    most = max(max(parts.values()) for parts in gigabytes.values())
    rows = sum(len(parts) for parts in gigabytes.values())
    axis = canvas(MAX_WIDTH, 0.3 + 0.24 * rows + 0.15 * len(gigabytes))
    y = axis.get_ylim()[1] - 0.25
    for name, parts in gigabytes.items():
        label(axis, 0.15, y - 0.24 * (len(parts) - 1) / 2, name, SMALL, align="left")
        length = 3.2 * max(parts.values()) / most
        bars(axis, 2.55, y, dict(parts), length, 0.24, "key", "{:.2f} GB")
        y -= 0.24 * len(parts) + 0.15
    return axis
