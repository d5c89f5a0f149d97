"""What training minimizes: functions `loss(model, batch)` that return a sum and what it was summed over.

Dimensions: B batch, T time, V vocabulary, K classes.
"""

import math
import reprlib
from functools import partial
from numbers import Real
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import IGNORE, to_device
from llmcourse.support.inputs import number
from llmcourse.support.outputs import wide

try:  # the same, in fewer passes over memory: read it last
    from llmcourse.fast.cross_entropy import cross_entropy
except ModuleNotFoundError:
    cross_entropy = partial(F.cross_entropy, ignore_index=IGNORE, reduction="sum")


class Loss(Protocol):
    """What `train(loss=...)` calls: `loss(model, batch)` returns (sum, count), or (sum, count, reported).

    - `sum` is a tensor with one number, differentiable in the weights: the loss added up over whatever
      the batch holds. What is minimized is the sum over all batches of a step, divided by their counts
      together: so four small batches make the step of one large batch, however unequal they are.
    - `count` is what was added up, as tokens or examples: a number, above 0 for a step as a whole.
    - `reported` is the sum that `Step.loss` tells in place of the first, where that one holds more than
      is to be compared: a penalty, or smoothed labels.

    `batch` is what the source of batches yields (a tuple, a dictionary, ...), on the model's device.
    `model` is what `train` was given, in training mode; `model(...)` may compute in half precision
    (`dtype`), so make its outputs float32 (`.float()`) before you add up. A model that is not trained,
    such as a teacher, is closed over by the loss and stays as it is; several that are trained go
    into one nn.ModuleDict.

    >>> def squared_error(model, batch):
    ...     x, y = batch
    ...     return F.mse_loss(model(x).float(), y, reduction="sum"), y.numel()
    """

    def __call__(self, model: nn.Module, batch: Any) -> tuple: ...


def next_token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return (cross-entropy in nats, number of targets that count) of a batch of (inputs, targets).

    Both are token ids (B, T); targets of IGNORE (-100) do not count.

    >>> next_token_loss(nn.Embedding(8, 8), (torch.arange(3)[None], torch.tensor([[1, 2, -100]])))[1]
    2
    """
    inputs, targets = batch
    logits = wide(model(inputs))  # (B, T, V)
    return cross_entropy(logits.flatten(0, 1), targets.flatten()), n_counted(targets)


def smoothed_next_token_loss(smoothing: float) -> Loss:
    """Return a loss that trains towards 1 - smoothing on the target, and the rest spread over all tokens.

    So no logit need grow without end. It reports the cross-entropy without smoothing, which can be
    compared between runs and with an evaluation. 0 is `next_token_loss`, 0.1 is usual. Raises
    ValueError for a share outside [0, 1).

    >>> smoothed_next_token_loss(0.0) is next_token_loss
    True

    Source: Szegedy et al. 2015, arXiv:1512.00567, sec. 7.
    """
    number(smoothing, "smoothing", 0.0, 1 - 1e-9, "a number in [0, 1): 0 is none, 0.1 is usual")
    if smoothing == 0:
        return next_token_loss

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int, Tensor]:
        inputs, targets = batch
        logits, flat = wide(model(inputs)).flatten(0, 1), targets.flatten()  # (B·T, V), (B·T,)
        options = dict(ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
        plain = cross_entropy(logits.detach(), flat)
        return F.cross_entropy(logits, flat, **options), n_counted(targets), plain

    return loss


def seq2seq_loss(model: nn.Module, batch: tuple[Tensor, ...], loss: Loss = next_token_loss) -> tuple:
    """Return what `loss` does, of targets that are written after a source, as in translation.

    The model maps (source ids (B, S), inputs (B, T), source mask (B, S)) to logits (B, T, V); a batch
    is (source ids, source mask, inputs, targets), as `data.pairs` makes it. With smoothed labels it is
    `partial(seq2seq_loss, loss=smoothed_next_token_loss(0.1))`.
    """
    source_ids, source_mask, inputs, targets = batch
    return loss(lambda ids: model(source_ids, ids, source_mask), (inputs, targets))


def classification_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, int]:
    """Return (cross-entropy in nats, number of labels) of a batch (what the model takes ..., labels).

    The model maps its inputs to logits (B, K); labels (B,) are classes from 0 to K - 1; IGNORE does
    not count.
    """
    *inputs, labels = batch
    logits = wide(model(*inputs))
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum"), n_counted(labels)


def mean_loss(model: nn.Module, batch, loss: Loss = next_token_loss) -> Tensor:
    """Return the loss of one batch for each thing that it counts: what one step of `train` minimizes."""
    total, count = loss(model, to_device(batch, next(model.parameters()).device))[:2]
    return total / count


def n_counted(targets: Tensor) -> int:
    """Return how many targets count."""
    return int((targets != IGNORE).sum())


def checked(returned) -> tuple[Tensor, float, Tensor]:
    """Return (sum, count, reported) of what a loss returned. Raises ValueError that says what it must be."""
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        what = f"{len(returned)} values" if isinstance(returned, tuple) else f"a {type(returned).__name__}"
        raise ValueError(
            f"the loss returned {what}: return (sum, count), such as (errors.sum(), len(errors))"
        )
    total, count, reported = returned if len(returned) == 3 else (*returned, returned[0])
    for name, value in (("sum", total), ("reported sum", reported)):
        if not isinstance(value, Tensor):
            raise ValueError(
                f"the loss returned the {name} {reprlib.repr(value)}: return a tensor, without .item()"
            )
        if value.dim():
            raise ValueError(
                f"the loss returned a {name} of shape {tuple(value.shape)}: add it up to one number, as .sum() does"
            )
    if not total.requires_grad:
        raise ValueError(
            f"the loss returned the sum {total.item():.4g} without a gradient: compute it from what the model "
            "puts out, without .detach(), torch.no_grad() or argmax"
        )
    if torch.finfo(total.dtype).bits < 32:
        raise ValueError(
            f"the loss was added up in {total.dtype}, too coarse for a sum: make float32 of what the model "
            "puts out first, with .float()"
        )
    count = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
    if not isinstance(count, Real) or not 0 <= count < math.inf:
        raise ValueError(
            f"the loss returned the count {reprlib.repr(count)}: return how many tokens or examples the sum is "
            "over, a number that is not negative"
        )
    return total, count, reported
