"""Schematic pictures of statistics: what two models have in common on the same items."""

from llmcourse.teach.diagrams import draw


def paired_table(a: str, b: str, both: int, only_a: int, only_b: int, neither: int):
    """Draw the 2 x 2 table of two models on the same items, the two cells that count in colour; return the axis.

    >>> axis = paired_table("new", "old", both=60, only_a=12, only_b=8, neither=20)
    """
    axis = draw.canvas(6.4, 1.9)
    look = dict(width=1.5, height=0.5)
    draw.label(axis, 2.55, 1.72, f"{b}: right")
    draw.label(axis, 4.05, 1.72, f"{b}: wrong")
    draw.label(axis, 1.72, 1.3, f"{a}: right", align="right")
    draw.label(axis, 1.72, 0.8, f"{a}: wrong", align="right")
    draw.box(axis, 2.55, 1.3, f"{both:,}", fill="soft", **look)
    draw.box(axis, 4.05, 1.3, f"{only_a:,}", fill="query", **look)
    draw.box(axis, 2.55, 0.8, f"{only_b:,}", fill="key", **look)
    draw.box(axis, 4.05, 0.8, f"{neither:,}", fill="soft", **look)
    draw.label(axis, 5.0, 1.05, "the coloured cells\ndecide: a coin for\neach item in them", align="left")
    total = both + only_a + only_b + neither
    share = (only_a + only_b) / total
    draw.label(
        axis, 3.3, 0.3, f"{total:,} items; the two differ on {only_a + only_b:,} of them ({share:.0%})"
    )
    return axis
