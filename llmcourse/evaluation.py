"""How good is a language model: loss, perplexity, bits per byte.

Dimensions: T time (context_length), S new tokens of a window (stride).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def evaluate_loss(
    model: nn.Module, token_ids: Tensor, stride: int | None = None, batch_size: int = 32
) -> float:
    """Return the mean cross-entropy in nats per token over the whole row `token_ids`.

    Windows of the model's context length start every `stride` tokens (default: the context
    length, so they do not overlap); each token but the first is scored once, by the window in
    which it is new. A smaller stride gives each token more context, costs more, and is fairer
    to the model. Raises ValueError for fewer than two tokens.
    """
    T = model.config.context_length
    S = T if stride is None else stride
    token_ids = torch.as_tensor(token_ids)
    if len(token_ids) < 2:
        raise ValueError(f"{len(token_ids)} tokens hold nothing to predict: give at least 2")
    if not 1 <= S <= T:
        raise ValueError(f"stride={S} must be between 1 and the context of {T}")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, counted = 0.0, 0
    starts = list(range(0, len(token_ids) - 1, S))
    full = [start for start in starts if start + T + 1 <= len(token_ids)]
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    if len(full) < len(starts):  # the first window that reaches the end of the text, shorter
        groups.append([starts[len(full)]])
    for group in groups:
        rows = torch.stack([token_ids[start : start + T + 1] for start in group]).long().to(device)
        losses = F.cross_entropy(model(rows[:, :-1]).transpose(1, 2), rows[:, 1:], reduction="none")
        for start, loss in zip(group, losses, strict=True):
            new = loss if start == 0 else loss[T - S :]
            total, counted = total + new.sum(dtype=torch.float64).item(), counted + len(new)
    model.train(was_training)
    return total / counted


def perplexity(loss: float) -> float:
    """Return e^loss: among how many equally likely tokens the model hesitates.

    >>> round(perplexity(math.log(8)), 6)
    8.0
    """
    return math.exp(loss)


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Return the bits that the model needs for one byte of text: comparable across tokenizers.

    `loss` is in nats per token, for `n_tokens` tokens that spell `n_bytes` bytes.

    >>> bits_per_byte(math.log(2), n_tokens=10, n_bytes=5)
    2.0
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes={n_bytes}: the text must have at least one byte")
    return loss / math.log(2) * n_tokens / n_bytes
