"""Measures a schematic picture: do its texts lie on the page, in their boxes, and apart from each other?"""

from itertools import combinations

from matplotlib.patches import Rectangle

SLACK = 1.0  # pixels that a text may reach over a line


def drawn_texts(axis):
    """Return (text, bounding box in pixels) of each text that is not empty."""
    figure = axis.figure
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    return [
        (t.get_text(), t.get_window_extent(renderer)) for t in axis.texts if t.get_text() and t.get_visible()
    ]


def inside(inner, outer) -> bool:
    return (
        inner.x0 >= outer.x0 - SLACK
        and inner.y0 >= outer.y0 - SLACK
        and inner.x1 <= outer.x1 + SLACK
        and inner.y1 <= outer.y1 + SLACK
    )


def problems(axis) -> list[str]:
    """Return a sentence for each text off the page, over the edge of its box, or on another text."""
    texts = drawn_texts(axis)
    renderer = axis.figure.canvas.get_renderer()
    boxes = [p.get_window_extent(renderer) for p in axis.patches if isinstance(p, Rectangle)]
    found = [f"{text!r} leaves the page" for text, place in texts if not inside(place, axis.figure.bbox)]
    for text, place in texts:
        middle = (place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2
        around = [b for b in boxes if b.x0 < middle[0] < b.x1 and b.y0 < middle[1] < b.y1]
        if around and not inside(place, min(around, key=lambda b: b.width * b.height)):
            found.append(f"{text!r} does not fit in its box")
        for other in boxes:
            crosses = place.x0 + SLACK < other.x1 and other.x0 + SLACK < place.x1
            crosses = crosses and place.y0 + SLACK < other.y1 and other.y0 + SLACK < place.y1
            if crosses and not inside(place, other) and other not in around:
                found.append(f"{text!r} lies on the edge of a box")
    for (text, a), (other, b) in combinations(texts, 2):
        if a.x0 + SLACK < b.x1 and b.x0 + SLACK < a.x1 and a.y0 + SLACK < b.y1 and b.y0 + SLACK < a.y1:
            found.append(f"{text!r} lies on {other!r}")
    return found


def text_at(axis, text):
    """Return the (x, y) in inches of the one text that reads `text`."""
    (place,) = [t.get_position() for t in axis.texts if t.get_text() == text]
    return place
