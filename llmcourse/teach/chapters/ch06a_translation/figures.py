"""The figures of `06a_translation`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from llmcourse.teach import plots
from llmcourse.teach.diagrams.draw import SMALL, arrow, box, canvas, label


def two_stacks(source: Sequence[str], written: Sequence[str], following: str) -> Axes:
    """Draw an encoder-decoder that has read `source` and `written`, and says what is `following`.

    >>> axis = two_stacks(["July", "4"], ["<start>", "4"], "juillet")
    >>> axis.texts[0].get_text()
    'July'
    """
    axis = canvas(6.8, 2.5)
    left, right, base, top = 1.5, 5.0, 0.32, 1.45

    def row(words, middle):
        places = [middle + (i - (len(words) - 1) / 2) * 0.72 for i in range(len(words))]
        return [
            box(axis, x, base, plots.printable(word), 0.68, 0.3)
            for x, word in zip(places, words, strict=True)
        ]

    sides = row(source, left), row(written, right)
    encoder = box(axis, left, top, "encoder\nlooks both ways", 1.5, 0.9, "key")
    decoder = box(
        axis, right, top, "decoder\nlooks back at what is written,\nthen at the source", 2.3, 0.9, "query"
    )
    for boxes, stack in zip(sides, (encoder, decoder), strict=True):
        for one in boxes:
            x = stack.x + (one.x - stack.x) * 0.6
            arrow(axis, one.top, (x, stack.bottom[1]))
    arrow(axis, encoder.right, decoder.left, "keys and values,\nread once", weight=2.5, offset=(0, 0.25))
    label(axis, left, 0.07, "source", SMALL)
    label(axis, right, 0.07, "target so far", SMALL)
    said = box(axis, right, 2.3, plots.printable(following), 0.9, 0.3, "value")
    arrow(axis, decoder.top, said.bottom)
    return axis


def alignments(panels: Sequence[tuple]) -> list[Axes]:
    """Draw (weights (T, S), target tokens, source tokens) side by side: a row for each token that is written.

    >>> axes = alignments([(np.eye(2), ["4", " juillet"], [" July", "4"])])
    >>> [text.get_text() for text in axes[0].get_yticklabels()]
    ['4', '␣juillet']
    """
    _, axes = plots.new_figure(len(panels), width=6.8, height=3.6)
    axes = list(np.atleast_1d(axes))
    for axis, (weights, target, source) in zip(axes, panels, strict=True):
        axis.imshow(np.asarray(weights), vmin=0, vmax=1, cmap="Greys", aspect="auto", interpolation="nearest")
        axis.set_xticks(range(len(source)), map(plots.printable, source), rotation=90, fontsize=8)
        axis.set_yticks(range(len(target)), map(plots.printable, target), fontsize=8)
        axis.set_xlabel("token of the source")
    axes[0].set_ylabel("token that is written")
    return axes


def scores(table: dict[str, dict[str, dict[str, float]]], metric: str = "chrf") -> list[Axes]:
    """Draw a bar for each system of table[language][system][metric], a panel for each language.

    >>> axes = scores({"fr": {"copy": {"chrf": 20.0}}, "zh": {"copy": {"chrf": 10.0}}})
    >>> [axis.get_title() for axis in axes]
    ['English to French', 'English to Chinese']
    """
    names = {"fr": "English to French", "zh": "English to Chinese"}
    _, axes = plots.new_figure(len(table), width=6.8, height=2.6, sharey=True)
    for axis, (language, systems) in zip(np.atleast_1d(axes), table.items(), strict=True):
        values = {system: row[metric] for system, row in systems.items()}
        plots.bars(
            values,
            f"{dict(chrf='chrF', bleu='BLEU')[metric]} on the test set",
            names[language],
            axis,
            "{:.1f}",
        )
        axis.set_xlim(0, 1.2 * max(values.values()))
    return list(np.atleast_1d(axes))


def hand_over(threshold: float, least: float) -> Axes:
    """Draw who answers: the model where it is sure, then the memory where it is near, then the dictionary.

    >>> texts = [text.get_text() for text in hand_over(-0.6, 0.5).texts]
    >>> "mean log p ≥ −0.6?" in texts, "cosine ≥ 0.5?" in texts
    (True, True)
    """
    axis = canvas(6.8, 2.0)
    top, middle, low = 1.7, 1.0, 0.3
    source = box(axis, 0.55, top, "source", 0.8, 0.36)
    model = box(axis, 2.1, top, "model\ntranslates", 1.2, 0.5, "key")
    sure = box(axis, 4.1, top, f"mean log p ≥ {threshold:g}?".replace("-", "−"), 1.6, 0.36)
    near = box(axis, 4.1, middle, f"cosine ≥ {least:g}?", 1.6, 0.36)
    written = box(axis, 6.0, top, "its translation", 1.4, 0.36, "value")
    found = box(axis, 6.0, middle, "the neighbour's", 1.4, 0.36, "value")
    looked_up = box(axis, 6.0, low, "word by word", 1.4, 0.36, "value")
    memory = box(axis, 2.1, middle, "memory", 1.2, 0.36, "query")
    dictionary = box(axis, 4.1, low, "dictionary", 1.6, 0.36, "query")
    arrow(axis, source.right, model.left)
    arrow(axis, model.right, sure.left)
    arrow(axis, sure.right, written.left, "yes")
    arrow(axis, sure.bottom, near.top, "no", offset=(0.16, 0.0))
    arrow(axis, source.bottom, memory.left)
    arrow(axis, memory.right, near.left)
    arrow(axis, near.right, found.left, "yes")
    arrow(axis, near.bottom, dictionary.top, "no", offset=(0.16, 0.0))
    arrow(axis, dictionary.right, looked_up.left)
    return axis
