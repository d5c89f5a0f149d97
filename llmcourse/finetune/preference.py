"""Learning from preferences: of two answers to one prompt, one was chosen. DPO, and a model of rewards.

Dimensions: B pairs, T time, C width (d_model).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.data.batches import EndlessBatches, batches_by_length, pad_right
from llmcourse.finetune.classify import hidden_states
from llmcourse.finetune.log_probs import answer_log_probs, check_reference
from llmcourse.losses import Loss
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import id_row, number, plain, whole


class Preferences(NamedTuple):
    """A batch of pairs: `token_ids` and `mask`, each (B, 2, T), first the chosen answer, then the rejected.

    A row is prompt, answer and padding on the right; `mask` is True at the tokens of the answer.
    """

    token_ids: Tensor
    mask: Tensor


def preference_batch(pairs: Sequence[tuple], pad_id: int = 0) -> Preferences:
    """Return `Preferences` of B pairs (prompt, chosen, rejected), each a list of token ids.

    An answer ends with its end token, which it must learn to write: put it there. Raises ValueError for
    an empty prompt or answer, what is no id, and two answers that are the same, which say nothing.

    >>> preference_batch([([5], [6, 7], [8])]).token_ids.tolist()
    [[[5, 6, 7], [5, 8, 0]]]
    """
    rows, spans = [], []
    for i, pair in enumerate(pairs):
        prompt, *answers = _checked_pair(pair, i)
        rows += [[*prompt, *answer] for answer in answers]
        spans += [(len(prompt), len(prompt) + len(answer)) for answer in answers]
    token_ids, _ = pad_right(rows, pad_id)  # (2 B, T)
    starts, ends = torch.tensor(spans).T[..., None]  # (2 B, 1) each
    places = torch.arange(token_ids.shape[1])
    mask = (starts <= places) & (places < ends)
    return Preferences(token_ids.unflatten(0, (-1, 2)), mask.unflatten(0, (-1, 2)))


def _checked_pair(pair, i: int) -> list[list[int]]:
    if len(pair) != 3:
        raise ValueError(f"pair {i} has {len(pair)} parts: give (prompt, chosen, rejected)")
    parts = [plain(part, f"a part of pair {i}") for part in pair]
    for part in parts:
        id_row(part, 2**31, f"a part of pair {i}")
    for name, part in zip(("prompt", "chosen answer", "rejected answer"), parts, strict=True):
        if not part:
            raise ValueError(f"the {name} of pair {i} has no token: an answer has at least its end token")
    if parts[1] == parts[2]:
        raise ValueError(f"both answers of pair {i} are the same: leave the pair out, it prefers nothing")
    return parts


class PreferenceBatches(EndlessBatches):
    """Endless batches of `Preferences` from pairs (prompt, chosen, rejected) of token ids, for `train`.

    Pairs of about equal length lie in one batch; pairs and batches are shuffled anew each epoch, and the
    last batch of an epoch may be smaller. Batch number `position` depends on the seed and on nothing
    else: setting it resumes exactly. Raises ValueError without a pair, and as `preference_batch` does.

    >>> batches = PreferenceBatches([([5], [6, 7], [8]), ([5], [9], [8])], batch_size=2)
    >>> next(batches).token_ids.shape
    torch.Size([2, 2, 3])
    """

    def __init__(self, pairs: Sequence[tuple], batch_size: int = 16, pad_id: int = 0, seed: int = 0):
        self.pairs = [_checked_pair(pair, i) for i, pair in enumerate(pairs)]
        self.lengths = [len(prompt) + max(map(len, answers)) for prompt, *answers in self.pairs]
        self.batch_size, self.pad_id, self.seed = whole(batch_size, "batch_size"), pad_id, seed
        self._shuffle(0)

    def _shuffle(self, epoch: int) -> None:
        self._batches = batches_by_length(self.lengths, self.batch_size, seed=self.seed * 1009 + epoch)
        self._epoch = epoch

    def __next__(self) -> Preferences:
        epoch, index = divmod(self.position, len(self._batches))
        if epoch != self._epoch:
            self._shuffle(epoch)
        self.position += 1
        return preference_batch([self.pairs[i] for i in self._batches[index]], self.pad_id)

    def _identity(self) -> dict:
        sizes = {"n_pairs": len(self.pairs), "n_tokens": sum(self.lengths)}
        return {"seed": self.seed, "batch_size": self.batch_size, **sizes}


def pair_log_probs(model: nn.Module, batch: Preferences) -> Tensor:
    """Return (B, 2): ln p of the chosen and of the rejected answer, each given the prompt."""
    return answer_log_probs(model, batch.token_ids.flatten(0, 1), batch.mask.flatten(0, 1)).view(-1, 2)


def implicit_rewards(model: nn.Module, reference: nn.Module, batch: Preferences, beta: float) -> Tensor:
    """Return (B, 2): beta · ln (p / p of the reference) of both answers, the rewards that DPO reads off.

    A model that maximizes a reward less beta times its divergence from the reference has exactly these
    log-ratios, up to a number for each prompt, which the difference of two answers does not contain.
    The reference reads without dropout and without gradients, and is left as it was.

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 5.
    """
    with torch.no_grad(), evaluating(reference):
        before = pair_log_probs(reference, batch)
    return beta * (pair_log_probs(model, batch) - before)


def dpo_loss(reference: nn.Module, beta: float = 0.1) -> Loss:
    """Return a loss for `train` on batches of `Preferences`: - ln σ(chosen reward - rejected reward).

    The rewards are `implicit_rewards`: no model of rewards is trained, and nothing is sampled. The
    reference is a frozen copy of the model as it was, so the loss begins at ln 2 a pair. A small `beta`
    lets the model go far from it. Only the difference is trained: it may grow while both answers become
    less probable, the chosen one too, so watch `preference_metrics`. Raises ValueError for a beta that
    is not above 0, and in training for a reference that is the model itself.

    >>> model = nn.Embedding.from_pretrained(torch.zeros(9, 9), freeze=False)
    >>> total, count = dpo_loss(copy.deepcopy(model))(model, preference_batch([([5], [6, 7], [8])]))
    >>> round(total.item(), 4), count
    (0.6931, 1)

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.
    """
    number(beta, "beta", 1e-6, 1e6, "a number above 0, such as 0.1")

    def loss(model: nn.Module, batch: Preferences) -> tuple[Tensor, int]:
        check_reference(model, reference)
        chosen, rejected = implicit_rewards(model, reference, batch, beta).unbind(1)  # (B,) each
        return -F.logsigmoid(chosen - rejected).sum(), len(chosen)

    return loss


@dataclass(frozen=True)
class PreferenceMetrics:
    """Means over pairs: ln p of both answers, the margin (difference of implicit rewards), and the share
    of pairs in which it is above 0."""

    chosen: float
    rejected: float
    margin: float
    accuracy: float


@torch.no_grad()
def preference_metrics(
    model: nn.Module, reference: nn.Module, batch: Preferences, beta: float = 0.1
) -> PreferenceMetrics:
    """Return what to watch in a run with `dpo_loss`, of one batch, best of pairs that are not trained on.

    A chosen answer whose ln p falls below where it began is a warning that the loss does not give.
    """
    with evaluating(model), evaluating(reference):
        log_probs, before = pair_log_probs(model, batch), pair_log_probs(reference, batch)
    margins = beta * (log_probs - before) @ log_probs.new_tensor([1.0, -1.0])
    chosen, rejected = log_probs.mean(0).tolist()
    return PreferenceMetrics(chosen, rejected, margins.mean().item(), (margins > 0).float().mean().item())


class RewardModel(nn.Module):
    """Our GPT without its vocabulary: one number, a reward, for a prompt with its answer.

    The GPT is copied, and the head begins at 0, so the first rewards are all 0. It has no bias: what is
    added to every reward changes no comparison, so comparisons could not teach it.

    Source: Ouyang et al. 2022, arXiv:2203.02155, sec. 3.5.
    """

    def __init__(self, gpt: GPT):
        super().__init__()
        self.body = copy.deepcopy(gpt)
        self.head = nn.Linear(gpt.config.d_model, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Return rewards (B,) for token_ids (B, T), read at the last token where `mask` (B, T) is True.

        It is the only place that has seen the whole answer, the end token included. Raises ValueError for
        a mask of another shape or type, and a row without an answer.
        """
        if mask.shape != token_ids.shape or mask.dtype != torch.bool or not mask.any(1).all():
            raise ValueError(
                f"the mask is {tuple(mask.shape)} in {mask.dtype}, token_ids {tuple(token_ids.shape)}: give both "
                "as (B, T), the mask in torch.bool, True at the answer, of which each row has at least a token"
            )
        last = mask.shape[1] - 1 - mask.int().flip(1).argmax(1)  # (B,)
        states = hidden_states(self.body, token_ids)[-1]  # (B, T, C)
        states = states[torch.arange(len(last), device=last.device), last]  # (B, C)
        return self.head(states.to(self.head.weight.dtype))[:, 0]


def pairwise_loss(model: RewardModel, batch: Preferences) -> tuple[Tensor, int]:
    """Return (Σ - ln σ(reward of the chosen - reward of the rejected), B): trains a `RewardModel`.

    The difference of two rewards is taken for the log-odds that the first is chosen (Bradley-Terry).
    Source: Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1.
    """
    rewards = model(batch.token_ids.flatten(0, 1), batch.mask.flatten(0, 1)).float().view(-1, 2)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]).sum(), len(rewards)
