"""Distillation: a student learns what a teacher holds possible, beside what the text says.

Dimensions: B batch, T time, V vocabulary, N positions (B·T).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import IGNORE
from llmcourse.losses import Loss, cross_entropy, n_counted, next_token_loss
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number
from llmcourse.support.outputs import wide


def distillation_loss(teacher: nn.Module, temperature: float = 2.0, share: float = 0.5) -> Loss:
    """Return a loss for `train`: (1 - share) · cross-entropy + share · temperature² · divergence.

    The divergence is `divergences(...)` from the teacher, whose distribution at each position is the
    soft target; both are softened by the temperature. Gradients of soft targets shrink with its square,
    so the factor keeps the two terms in proportion when the temperature changes. Reported is the
    cross-entropy alone, to compare with other runs. Targets of IGNORE (-100) count in neither term.
    share=0 is `next_token_loss`, which asks no teacher; share=1 never looks at the targets' values.

    The teacher stands on the student's device, reads without dropout and without gradients, and is
    left as it was. It costs a forward pass a step, which is more than the student's whole step where
    the teacher is several times larger. Raises ValueError for a temperature outside 0.01 to 100 and a
    share outside [0, 1]; the loss raises it for a teacher with another vocabulary.

    >>> loss = distillation_loss(nn.Embedding(8, 8), temperature=4.0)
    >>> total, count, reported = loss(nn.Embedding(8, 8), (torch.arange(3)[None], torch.tensor([[1, 2, -100]])))
    >>> count
    2

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, sec. 2 and 2.1.
    """
    number(temperature, "temperature", 0.01, 100, "a number from 0.01 to 100: 1 softens nothing, 2 is usual")
    number(share, "share", 0, 1, "a share of the soft targets from 0 to 1, such as 0.5")
    if share == 0:
        return next_token_loss

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int, Tensor]:
        inputs, targets = batch
        logits, flat = wide(model(inputs)).flatten(0, 1), targets.flatten()  # (N, V), (N,)
        with torch.no_grad(), evaluating(teacher):  # inference_mode's tensors could not enter a gradient
            wanted = wide(teacher(inputs)).flatten(0, 1)  # (N, V)
        check_vocabularies(logits, wanted)
        plain = cross_entropy(logits, flat)
        soft = divergences(logits / temperature, wanted / temperature)[flat != IGNORE].sum()
        return (1 - share) * plain + share * temperature**2 * soft, n_counted(targets), plain

    return loss


def divergences(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return (N,): the Kullback-Leibler divergence KL(p ‖ q) in nats of each row of logits (N, V).

    p = softmax(wanted) is the teacher's distribution and q = softmax(logits) the student's, Σ p ln(p/q):
    it is large where the student rules out what the teacher holds possible, and 0 where they agree. Its
    gradient is q - p in `logits`. A token that the teacher excludes, with a logit of -inf, adds nothing.

    >>> halves, first = torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]])
    >>> divergences(halves, first).item() == -torch.tensor(0.5).log().item()
    True
    """
    p, log_q = F.softmax(wanted, dim=-1), F.log_softmax(logits, dim=-1)  # (N, V)
    return (torch.xlogy(p, p) - p * log_q.masked_fill(p == 0, 0)).sum(-1)  # both may exclude a token


def check_vocabularies(logits: Tensor, wanted: Tensor) -> None:
    """Raise ValueError if the teacher's logits are not for the tokens of the student's."""
    if wanted.shape != logits.shape:
        raise ValueError(
            f"the teacher has a vocabulary of {wanted.shape[-1]} and the student one of {logits.shape[-1]}: soft "
            "targets need the same tokens on both sides; build the student with the teacher's tokenizer"
        )
