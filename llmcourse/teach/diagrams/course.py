"""The map of the course: chapters as boxes, in the order of study."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from llmcourse.teach.diagrams.draw import SMALL, Box, arrow, box, canvas, label

WIDTH, ROW = 6.8, 0.95


def course_map(parts: Mapping[str, Sequence[str]]) -> Axes:
    """Draw one row of boxes for each part of the course, joined in the order of study.

    parts: name of a part -> its chapters, each as "number words", such as "04a attention".

    >>> axis = course_map({"Start": ["00 start", "01 background"], "The machine": ["04a attention"]})
    >>> [text.get_text() for text in axis.texts][1:3]
    ['00', 'start']
    """
    axis = canvas(WIDTH, ROW * len(parts) + 0.1)
    last = None
    for i, (part, chapters) in enumerate(parts.items()):
        y = ROW * (len(parts) - i) - 0.5
        step = min(1.12, (WIDTH - 0.3) / len(chapters))
        label(axis, 0.29, y + 0.4, part, align="left", weight="bold")
        for j, chapter in enumerate(chapters):
            number, words = chapter.split(" ", 1)
            here = box(axis, 0.2 + step * (j + 0.5), y, width=step - 0.18, height=0.52, fill="query")
            label(axis, here.x, y + 0.12, number, weight="bold")
            label(axis, here.x, y - 0.11, words, SMALL)
            if j:
                arrow(axis, last.right, here.left)
            elif last:
                _to_next_row(axis, last, here)
            last = here
    return axis


def _to_next_row(axis: Axes, last: Box, first: Box) -> None:
    """Join the last box of a row to the first of the next, by a line through the space between the rows."""
    between, left = last.bottom[1] - 0.08, 0.12
    axis.plot(
        [last.x, last.x, left, left], [last.bottom[1], between, between, first.y], color="0.2", linewidth=1
    )
    arrow(axis, (left, first.y), first.left)
