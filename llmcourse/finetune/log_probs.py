"""How probable a model holds the answers that it is shown: what preferences and rewards push up and down.

A row is a prompt, an answer, and padding on the right; `mask` says which of its tokens are the answer's.

Dimensions: B rows, T time, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import IGNORE
from llmcourse.support.outputs import wide


def token_log_probs(model: nn.Module, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Return (B, T): ln p of each token of an answer, given all before it; 0 where `mask` is False.

    `token_ids` (B, T) are padded on the right with any id, `mask` (B, T) is True at the answer's tokens,
    its end token included. Entry t belongs to token t, which is predicted at t - 1: so the first token
    of a row, which nothing predicts, cannot be an answer's. Differentiable in the weights, in float32
    at least. Raises ValueError for a mask of another shape or type, and one that holds a first token.

    >>> even = nn.Embedding.from_pretrained(torch.zeros(4, 4))  # four tokens, equally probable
    >>> mask = torch.tensor([[False, True, True, False]])
    >>> token_log_probs(even, torch.tensor([[0, 1, 2, 0]]), mask).exp().tolist()
    [[1.0, 0.25, 0.25, 1.0]]
    """
    check_mask(token_ids, mask)
    logits = wide(model(token_ids[:, :-1]))  # (B, T - 1, V)
    targets = token_ids[:, 1:].masked_fill(~mask[:, 1:], IGNORE)  # (B, T - 1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return F.pad(-losses.view(targets.shape), (1, 0))  # (B, T)


def answer_log_probs(model: nn.Module, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Return (B,): ln p of each answer given its prompt, the sum of `token_log_probs` over its tokens.

    A sum, so it is the logarithm of a probability: an answer twice as long is about twice as far below
    0. A mean over the tokens would not be, and compares answers of unequal length otherwise.

    >>> even = nn.Embedding.from_pretrained(torch.zeros(4, 4))
    >>> answer_log_probs(even, torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]])).exp().tolist()
    [0.0625]
    """
    return token_log_probs(model, token_ids, mask).sum(-1)


def check_reference(model: nn.Module, reference: nn.Module) -> None:
    """Raise ValueError for a reference that is the model itself: it would move along, and hold nothing."""
    if model is reference:
        raise ValueError(
            "the reference is the model that is trained, and moves with it: give a copy, copy.deepcopy(model)"
        )


def check_mask(token_ids: Tensor, mask: Tensor) -> None:
    """Raise ValueError for a mask that cannot say which of the `token_ids` (B, T) belong to answers."""
    if token_ids.dim() != 2 or mask.shape != token_ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"token_ids have the shape {tuple(token_ids.shape)} and the mask {tuple(mask.shape)} in "
            f"{mask.dtype}: give both as (B, T), the mask in torch.bool, True at the tokens of the answer"
        )
    if mask[:, 0].any():
        raise ValueError(
            f"row {int(mask[:, 0].nonzero()[0])} has an answer that begins with its first token, which "
            "nothing predicts: put the prompt, or a token that opens the answer, before it"
        )
