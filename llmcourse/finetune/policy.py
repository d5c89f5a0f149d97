"""Policy gradients: answers that the model wrote are made more probable where they were better than others.

The answers to one prompt are a group; the advantage of an answer is its reward less the mean of its
group. GRPO, and its variants, are these two lines and what is said below about lengths.

Dimensions: P prompts, G answers to each, B = P·G rows, T time.
"""

from typing import NamedTuple

from torch import Tensor, nn

from llmcourse.finetune.log_probs import token_log_probs
from llmcourse.losses import Loss


class Rollouts(NamedTuple):
    """A batch of answers that a model wrote, and how much better each was than the others to its prompt.

    - `token_ids` (B, T): prompt, answer with its end token, padding on the right.
    - `mask` (B, T): True at the tokens of the answer, the end token included.
    - `advantages` (B,): of the answers, as `group_advantages` gives them, flattened.
    - `old_log_probs` (B, T): `token_log_probs` of the model that wrote them, or None where that is the
      model as it stands, because each batch makes one step.
    """

    token_ids: Tensor
    mask: Tensor
    advantages: Tensor
    old_log_probs: Tensor | None = None


def group_advantages(rewards: Tensor, scale: bool = False) -> Tensor:
    """Return (P, G): each reward less the mean of its group; `rewards` (P, G) are those of G answers.

    A group in which all answers earned the same teaches nothing: its advantages are 0. With `scale`
    they are divided by the standard deviation of the group (G - 1 in its denominator, plus 1e-4), as
    GRPO does: groups that are nearly always right, or nearly always wrong, then weigh as much as those
    that could go either way. Raises ValueError for another shape, a group of one, and rewards that are
    not finite.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [[0.75, -0.25, -0.25, -0.25], [0.0, 0.0, 0.0, 0.0]]

    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2; without the scale Liu et al. 2025,
    arXiv:2503.20783, sec. 3.2.
    """
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards have the shape {tuple(rewards.shape)}: give (P, G), at least two answers to each "
            "prompt, since a reward is compared with those of the others"
        )
    if not rewards.isfinite().all():
        raise ValueError("a reward is not finite: let the rule give a number to every answer, 0 if it fails")
    rewards = rewards.float() if not rewards.is_floating_point() else rewards
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale else centred


def policy_loss() -> Loss:
    """Return a loss for `train` on batches of `Rollouts`: - advantage · ln p(answer), for each answer.

    >>> loss = policy_loss()
    >>> batch = Rollouts(torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]]), torch.tensor([0.5]))
    >>> loss(nn.Embedding.from_pretrained(torch.zeros(4, 4), freeze=False), batch)[1]
    1
    """

    def loss(model: nn.Module, batch: Rollouts) -> tuple[Tensor, int]:
        log_probs = token_log_probs(model, batch.token_ids, batch.mask)  # (B, T)
        return -(batch.advantages[:, None] * log_probs).sum(), len(batch.token_ids)

    return loss
