"""Policy gradients: answers that the model wrote are made more probable where they were better than others.

The answers to one prompt are a group; the advantage of an answer is its reward less the mean of its
group. `policy_loss()` is all that learning needs; GRPO and its variants are what its arguments add.

Dimensions: P prompts, G answers to each, B = P·G rows, T time.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from llmcourse.finetune.log_probs import check_reference, token_log_probs
from llmcourse.losses import Loss
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number, whole

NORMALIZATIONS = ("constant", "sequence", "token")


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

    A group in which all answers earned the same teaches nothing: its advantages are 0. What is taken off
    makes the gradient quieter and, on average, only shorter, by the factor 1 - 1/G. With `scale`
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


def policy_loss(
    clip: float | None = None,
    kl: float = 0.0,
    reference: nn.Module | None = None,
    normalization: str = "constant",
    max_tokens: int = 1,
) -> Loss:
    """Return a loss for `train` on batches of `Rollouts`, whose gradient raises the expected reward.

    Without arguments it is, for each answer, - advantage · ln p(answer): where the model itself wrote
    the answers, its gradient is, on average, that of the expected reward (REINFORCE). Added are:

    - `clip`, such as 0.2: in place of advantage · ln p of each token stands min(r · A, clamp(r, 1 - clip,
      1 + clip) · A), with the ratio r of its probabilities now and when it was written. A batch may then
      make several steps: a token that has moved by `clip` in the wanted direction is left alone. In the
      first step, and without `old_log_probs`, r = 1 and the gradient is the plain one.
    - `kl`, such as 0.04: times r · `kl_estimates` from the `reference` model, which is left as it is. It
      holds the model near the reference, and costs a forward pass. The r, 1 at first, is there for the
      gradient (see `kl_estimates`).
    - `normalization`: what the terms of the tokens are divided by. "constant" is answers · `max_tokens`:
      the length of an answer plays no part. "sequence" takes the mean of each answer first, so that a
      token of a long answer weighs less: long wrong answers are hardly discouraged. "token" is the mean
      over all tokens of the batch.

    The loss counts answers, or tokens with "token". Its value says little: at r = 1 it is the mean
    advantage. Watch the reward. Raises ValueError for a number out of range, an unknown
    normalization, `max_tokens` with another one, and `kl` without `reference`; in training for a
    reference that is the model itself, and a batch whose parts have other shapes than `Rollouts` says.

    >>> loss = policy_loss(clip=0.2, normalization="sequence")  # GRPO without KL
    >>> batch = Rollouts(torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]]), torch.tensor([0.5]))
    >>> total, count = loss(nn.Embedding.from_pretrained(torch.zeros(4, 4), freeze=False), batch)
    >>> total.item(), count
    (-0.5, 1)

    Source: Williams 1992 (the plain gradient); Schulman et al. 2017, arXiv:1707.06347, eq. 7 (clip);
    Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4 ("sequence", kl); Yu et al. 2025, arXiv:2503.14476,
    eq. 8 ("token"); Liu et al. 2025, arXiv:2503.20783, sec. 3.2 ("constant").
    """
    _check_switches(clip, kl, reference, normalization, max_tokens)

    def loss(model: nn.Module, batch: Rollouts) -> tuple[Tensor, int]:
        check_reference(model, reference)
        _check_shapes(batch)
        log_probs = token_log_probs(model, batch.token_ids, batch.mask)  # (B, T)
        old = log_probs.detach() if batch.old_log_probs is None else batch.old_log_probs
        ratios = (log_probs - old).exp()  # (B, T), 1 outside the answers
        terms = -_gains(log_probs, ratios, batch.advantages, clip)
        if kl:
            with torch.no_grad(), evaluating(reference):
                wanted = token_log_probs(reference, batch.token_ids, batch.mask)
            terms = terms + kl * ratios * kl_estimates(log_probs, wanted)
        terms, lengths = terms * batch.mask, batch.mask.sum(1)  # (B, T), (B,)
        if normalization == "token":
            return terms.sum(), int(lengths.sum())
        if normalization == "sequence":
            return (terms.sum(1) / lengths.clamp(min=1)).sum(), len(lengths)
        return terms.sum() / max_tokens, len(lengths)

    return loss


def _gains(log_probs: Tensor, ratios: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """Return (B, T): what is to be made large, for each token."""
    advantages = advantages.to(log_probs)[:, None]  # (B, 1)
    if clip is None:
        return advantages * log_probs
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)


def kl_estimates(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return e^d - d - 1 for d = reference - log_probs: an estimate of the divergence, for each token.

    Both are ln p of the same tokens, (B, T), under the model that drew them and under the reference. On
    average over what the model draws, it is KL(model || reference) in nats, as -d is; it is never
    negative ("k3"), and swings less than -d as long as the two are near, more where they are far apart.

    The tokens, once drawn, do not move with the weights. So as a term of a loss it has, on average, the
    gradient of another quantity, KL(reference || model); multiplied by the ratio of the probabilities now
    and when they were drawn, which is 1 and has a gradient, it has that of its own.

    >>> kl_estimates(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.25]).log())
    tensor([0.0000, 0.1931])

    Source: Schulman 2020, "Approximating KL Divergence", joschu.net/blog/kl-approx.html; the ratio:
    DeepSeek-AI 2025, arXiv:2512.02556 (DeepSeek-V3.2).
    """
    d = reference - log_probs
    return d.expm1() - d


def _check_shapes(batch: Rollouts) -> None:
    """Raise ValueError for what would be spread over rows or tokens that it was not measured on."""
    shape, old = tuple(batch.token_ids.shape), batch.old_log_probs
    if batch.advantages.shape != shape[:1] or (old is not None and old.shape != shape):
        raise ValueError(
            f"token_ids {shape}, advantages {tuple(batch.advantages.shape)}"
            + ("" if old is None else f", old_log_probs {tuple(old.shape)}")
            + ": give (B, T), (B,) and (B, T); advantages (P, G) of groups are flattened"
        )


def _check_switches(clip, kl, reference, normalization, max_tokens) -> None:
    if clip is not None:
        number(clip, "clip", 1e-6, 1, "a number above 0 and up to 1, such as 0.2, or None for no ratio")
    number(kl, "kl", 0, 1e6, "a number that is not negative, such as 0.04; 0 compares with no reference")
    if kl and reference is None:
        raise ValueError(f"kl={kl} needs reference=: give a frozen copy of the model as it was before")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization={normalization!r} is unknown: choose one of {NORMALIZATIONS}")
    if whole(max_tokens, "max_tokens") > 1 and normalization != "constant":
        raise ValueError(
            f"max_tokens={max_tokens} is what normalization='constant' divides by: leave it out with "
            f"{normalization!r}, which divides by the lengths themselves"
        )
