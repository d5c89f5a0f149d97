"""The figures of `04b_multi_head`."""

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from llmcourse.teach import plots


def shares(roles: dict[str, Tensor]) -> list[Axes]:
    """Draw, for each role, a table of layers and heads with how much each head plays it.

    >>> import torch
    >>> shares({"previous": torch.tensor([[0.1, 0.9]]), "same": torch.zeros(1, 2)})[1].get_title()
    'same'
    """
    _, axes = plots.new_figure(len(roles), width=6.6, height=2.2)
    for axis, (name, share) in zip(axes, roles.items(), strict=True):
        n_layers, n_heads = share.shape
        axis.imshow(np.asarray(share), vmin=0, vmax=1, cmap="Greys")
        axis.set(title=name, xlabel="head", xticks=range(n_heads), yticks=range(n_layers))
        for layer in range(n_layers):
            for head in range(n_heads):
                value = share[layer, head].item()
                look = dict(ha="center", va="center", fontsize=6, color="w" if value > 0.5 else "k")
                axis.text(head, layer, f"{value:.2f}".removeprefix("0"), **look)
    axes[0].set_ylabel("layer")
    return list(axes)


def heads_on_tokens(weights: list[Tensor], tokens: list[str], titles: list[str]) -> list[Axes]:
    """Draw the (T, T) weights of a few heads, two in a row, with the tokens at both edges.

    >>> import torch
    >>> axes = heads_on_tokens([torch.eye(2), torch.eye(2)], ["my", " love"], ["a", "b"])
    >>> [label.get_text() for label in axes[1].get_xticklabels()]
    ['my', '␣love']
    """
    n_rows = -(-len(weights) // 2)
    figure, axes = plots.plt.subplots(
        n_rows, 2, figsize=(6.8, 3.5 * n_rows), layout="constrained", squeeze=False
    )
    names = [plots.printable(token) for token in tokens]
    for axis, matrix, title in zip(axes.flat, weights, titles, strict=False):
        axis.imshow(np.asarray(matrix), vmin=0, vmax=1, cmap="Greys", interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
        axis.set_yticks(range(len(names)), names, fontsize=7)
    for axis in axes.flat[len(weights) :]:
        axis.axis("off")
    figure.supxlabel("looked at", fontsize=9)
    figure.supylabel("looking", fontsize=9)
    return list(axes.flat)


def most_missed(cost: Tensor, n: int = 8) -> Axes:
    """Draw the n heads of (layers, heads) whose removal costs most, as bars.

    >>> import torch
    >>> axis = most_missed(torch.tensor([[0.1, 0.3], [0.2, 0.0]]), n=2)
    >>> [label.get_text() for label in axis.get_yticklabels()]
    ['layer 0, head 1', 'layer 1, head 0']
    """
    n_heads = cost.shape[1]
    first = cost.flatten().argsort(descending=True)[:n].tolist()
    values = {f"layer {i // n_heads}, head {i % n_heads}": cost.flatten()[i].item() for i in first}
    x_label, title = "loss added without this head (nats per token)", f"The {n} heads that are missed most"
    return plots.bars(values, x_label, title, format="{:.3f}")
