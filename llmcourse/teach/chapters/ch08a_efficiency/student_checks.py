"""Exercise of chapter 8a: the loss of a student that learns from a teacher."""

import torch
import torch.nn.functional as F

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import NotRight, exercise
from llmcourse.teach.forms import number


@exercise(
    "08a-distill",
    "Learn from a teacher's probabilities",
    minutes=10,
    difficulty=2,
    hints=(
        "log_softmax of logits / temperature gives the log-probabilities of both, teacher and student.",
        "KL(teacher || student) of one token is the sum over the vocabulary of p (log p - log q), p the "
        "teacher's; then take the mean over the tokens.",
        "share x temperature² x KL + (1 - share) x F.cross_entropy(student, targets): the second part knows no "
        "temperature.",
    ),
    wants="function",
    form=number,
)
def check_distill(answer):
    """Compare with the formula in float64; tell temperatures, directions, means and shares apart."""

    def loss(
        soft=lambda s, t, T: _kl(t / T, s / T),
        hard=lambda s, t, y, T: F.cross_entropy(s, y),
        factor=lambda T: T**2,
        shares=lambda a: (a, 1 - a),
    ):
        def function(student, teacher, targets, temperature, share):
            s, t, T = student.double(), teacher.double(), temperature
            a, b = shares(share)
            return (a * factor(T) * soft(s, t, T) + b * hard(s, t, targets, T)).item()

        return function

    def example(N, V, seed, size=2.0):
        generator = torch.Generator().manual_seed(seed)
        student, teacher = (size * torch.randn(N, V, generator=generator) for _ in range(2))
        return student, teacher, torch.randint(V, (N,), generator=generator)

    def tried(student, *others):
        try:
            return answer(student, *others)
        except NotRight as error:
            if student.abs().max() < 50:
                raise
            raise NotRight(
                "right for small logits, but not for logits of a few hundred, where a softmax is 0 and has no log: "
                f"use log_softmax of the logits ({error})"
            ) from None

    few, more = example(3, 5, 4), example(7, 4, 5)
    cases = {
        "for 3 tokens, temperature 2 and share 0.7 it is {right}; yours is {value}": (*few, 2.0, 0.7),
        "right at temperature 2, but not for 7 tokens at temperature 3 and share 0.4": (*more, 3.0, 0.4),
        "with share 1 only the teacher counts: {right}; yours is {value}": (*more, 1.5, 1.0),
        "with share 0 that is F.cross_entropy: {right}; yours is {value}": (*few, 4.0, 0.0),
        "right for small logits, but not for logits of a few hundred: use log_softmax": (
            *example(3, 5, 6, size=150.0),
            2.0,
            0.5,
        ),
    }
    slips = {
        "the factor temperature² is missing: without it the teacher fades as the temperature grows": loss(
            factor=lambda T: 1
        ),
        "the factor is the SQUARE of the temperature": loss(factor=lambda T: T),
        "you divide by temperature²: it is a factor": loss(factor=lambda T: T**-2),
        "the factor temperature² belongs to the teacher's part only": loss(
            hard=lambda s, t, y, T: T**2 * F.cross_entropy(s, y)
        ),
        "that is KL(student || teacher): the teacher's probabilities are the weights": loss(
            soft=lambda s, t, T: _kl(s / T, t / T)
        ),
        "the teacher's logits are not divided by the temperature": loss(soft=lambda s, t, T: _kl(t, s / T)),
        "the student's logits are not divided by the temperature": loss(soft=lambda s, t, T: _kl(t / T, s)),
        "nothing is divided by the temperature": loss(soft=lambda s, t, T: _kl(t, s)),
        "you multiply logits by the temperature: divide them": loss(soft=lambda s, t, T: _kl(t * T, s * T)),
        "the targets' part knows no temperature": loss(hard=lambda s, t, y, T: F.cross_entropy(s / T, y)),
        "that is the cross-entropy with the teacher: the KL divergence is it minus the teacher's entropy": loss(
            soft=lambda s, t, T: F.cross_entropy(s / T, (t / T).softmax(-1))
        ),
        "you take the sum over the tokens: the mean": loss(
            soft=lambda s, t, T: len(s) * _kl(t / T, s / T),
            hard=lambda s, t, y, T: F.cross_entropy(s, y, reduction="sum"),
        ),
        "the teacher's part is a sum over the tokens: the mean": loss(
            soft=lambda s, t, T: len(s) * _kl(t / T, s / T)
        ),
        "you take the mean over tokens AND vocabulary: sum over the vocabulary (batchmean of F.kl_div)": loss(
            soft=lambda s, t, T: _kl(t / T, s / T) / s.shape[1]
        ),
        "the two shares are exchanged: `share` is the teacher's": loss(shares=lambda a: (1 - a, a)),
        "the targets' part has the weight 1 - share": loss(shares=lambda a: (a, 1)),
        "the targets' part is missing": loss(shares=lambda a: (a, 0)),
        "the teacher's part is missing": loss(shares=lambda a: (0, 1 - a)),
        "the parts have no shares: `share` and 1 - share": loss(shares=lambda a: (1, 1)),
        "the targets of the second part are the real next tokens, not the teacher's favourites": loss(
            hard=lambda s, t, y, T: F.cross_entropy(s, t.argmax(-1))
        ),
        "the cross-entropy of the second part is the student's, not the teacher's": loss(
            hard=lambda s, t, y, T: F.cross_entropy(t, y)
        ),
    }
    examine(tried, loss(), cases, slips, rtol=1e-4, atol=1e-5)
    return "soft targets and hard ones, in one loss whose parts stay of one size at any temperature."


def _kl(p_logits, q_logits):
    """Return KL(p || q) in nats, the mean over the tokens."""
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()
