"""Answers that the model writes as it stands, scored by a rule: a source of batches for `training.train`.

This is what reinforcement learning adds to training. The loop asks for its next batch as always; the
batch is written by the model that is being trained, so it knows what the last update did.

Dimensions: P prompts, G answers to each, B = P·G rows, T time, N new tokens at most.
"""

import copy
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmcourse.data.batches import EndlessBatches
from llmcourse.finetune.log_probs import token_log_probs
from llmcourse.finetune.policy import Rollouts, group_advantages
from llmcourse.finetune.tasks import Task
from llmcourse.finetune.verifiable import CHARACTERS, Spelling, exact_reward
from llmcourse.generate import build_decoder, pad_left, prompt_rows, read
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.sampling import choose_next
from llmcourse.support.inputs import id_row, number, whole
from llmcourse.support.outputs import wide

Reward = Callable[[Task, str], float]  # of a task, and what was written, its end included if it came


@torch.no_grad()
def sample_answers(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    group: int,
    max_new_tokens: int,
    end_id: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return `group` answers to each prompt, (P·G, N) ids: those to one prompt side by side.

    An answer ends with `end_id`, which fills what is left of its row, or is cut after N tokens. Each
    prompt is read once, and what it leaves in the cache copied for its answers; all are written at
    once. Temperature 0 writes the likeliest tokens. Raises ValueError for prompts as `generate` does,
    and for more tokens than the context holds.
    """
    rows = [
        row.to(model.token_embedding.weight.device) for row in prompt_rows(prompts, model.config.vocab_size)
    ]
    group, N = whole(group, "group"), whole(max_new_tokens, "max_new_tokens")
    id_row([end_id], model.config.vocab_size, "end_id")
    longest, limit = max(map(len, rows)), model.config.context_length
    if longest + N > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new_tokens={N} exceed the context of {limit}: "
            "give shorter prompts, or a smaller max_new_tokens"
        )
    padded, padding = pad_left(rows)
    caches = model.make_caches(len(rows))
    written = padded.new_full((len(rows) * group, N), end_id)
    with evaluating(model):
        logits = read(model, padded, padding, caches).repeat_interleave(group, dim=0)  # (B, V)
        caches = [copied(cache, group) for cache in caches]
        padding = None if padding is None else padding.repeat_interleave(group)
        step = build_decoder(model, caches, padding) or (
            lambda new: read(model, new[:, None], padding, caches)
        )
        done = torch.zeros(len(written), dtype=torch.bool, device=written.device)
        for place in range(N):
            new = choose_next(logits, temperature, generator=generator).masked_fill(done, end_id)
            written[:, place] = new
            done |= new == end_id
            if done.all() or place == N - 1:
                return written
            logits = step(new)


def copied(cache, group: int):
    """Return a cache in which each text stands `group` times, side by side."""
    wider = copy.copy(cache)
    wider.k, wider.v = (part.repeat_interleave(group, dim=0) for part in (cache.k, cache.v))
    return wider


def answer_lengths(written: Tensor, end_id: int) -> Tensor:
    """Return (B,): how many tokens each row (B, N) of `sample_answers` has, its end included.

    >>> answer_lengths(torch.tensor([[5, 0, 0], [5, 6, 7]]), end_id=0).tolist()
    [2, 3]
    """
    before = (written == end_id).cumsum(-1) == 0  # (B, N): no end so far
    return (before.sum(-1) + 1).clamp(max=written.shape[-1])


def join(prompts: Sequence[Sequence[int]], written: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return (token_ids, mask), each (B, T): every prompt with its answer, padded on the right.

    `prompts` are one for each row of `written` (B, N), which has `lengths` (B,) tokens. The mask is
    True at the answer. What pads a row is its last id.

    >>> [part.tolist() for part in join([[7], [8, 9]], torch.tensor([[5, 0], [6, 6]]), torch.tensor([1, 2]))]
    [[[7, 5, 5, 5], [8, 9, 6, 6]], [[False, True, False, False], [False, False, True, True]]]
    """
    starts = torch.tensor([len(prompt) for prompt in prompts], device=written.device)
    T, rows = int((starts + lengths).max()), []
    for prompt, answer, n in zip(prompts, written.tolist(), lengths.tolist(), strict=True):
        ids = [*prompt, *answer[:n]]
        rows.append(ids + ids[-1:] * (T - len(ids)))
    place = torch.arange(T, device=written.device)
    return torch.tensor(rows, device=written.device), (place >= starts[:, None]) & (
        place < (starts + lengths)[:, None]
    )


def merge_equal(batch: Rollouts) -> Rollouts:
    """Return a batch that makes the same step of `policy_loss` with fewer rows.

    Of equal rows one is left, and their advantages are added up; what adds up to 0, such as a group in
    which all answers earned the same, is left out, unless that is everything. Advantages are multiplied
    by rows left / rows before, so that the mean over the answers stays what it was. That of the tokens
    does not: the step is another one with normalization="token", and with `kl`.

    >>> token_ids, mask = torch.tensor([[1, 5], [1, 5], [1, 6], [2, 5]]), torch.tensor([[False, True]] * 4)
    >>> batch = merge_equal(Rollouts(token_ids, mask, torch.tensor([0.5, 0.5, -1.0, 0.0])))
    >>> batch.token_ids.tolist(), batch.advantages.tolist()
    ([[1, 5], [1, 6]], [0.5, -0.5])
    """
    _, place = torch.unique(torch.cat([batch.token_ids, batch.mask], 1), dim=0, return_inverse=True)
    sums = batch.advantages.new_zeros(int(place.max()) + 1).index_add(0, place, batch.advantages)
    first = torch.full_like(sums, len(place), dtype=torch.long)
    first = first.scatter_reduce(0, place, torch.arange(len(place), device=place.device), "amin")
    counts = sums.abs() > 1e-6
    if not counts.any():
        return batch
    rows, order = first[counts].sort()
    advantages = sums[counts][order] * len(rows) / len(place)
    old = None if batch.old_log_probs is None else batch.old_log_probs[rows]
    return Rollouts(batch.token_ids[rows], batch.mask[rows], advantages, old)


class RolloutBatches(EndlessBatches):
    """Endless batches of `Rollouts`: answers of `model` as it stands to some of `tasks`, with advantages.

    Each `next` draws `n_tasks` tasks, has the model write `group` answers to each at `temperature`,
    asks `reward(task, answer)` for each answer (text, its end included if it came), and compares within
    the group (`group_advantages`, `scale`). What was drawn stays to be looked at: `rewards` (P, G),
    `lengths` (P, G) in tokens, `answers` and `drawn`, the tasks.

    `merge` makes the same step in less time (`merge_equal`); not for a loss with `kl` or with
    normalization="token", which ask how often each answer came. With `reuse` above 1, each batch comes so many times, and `old_log_probs` are those of the model
    that wrote it, for a loss with a ratio. Batch number `position` depends on the seed and on the model:
    a run that resumes goes on to the bit.

    Raises ValueError for fewer than two answers to a task, and as `sample_answers`.

    Source: Shao et al. 2024, arXiv:2402.03300, algorithm 1.
    """

    def __init__(
        self,
        model: GPT,
        tasks: Sequence[Task],
        reward: Reward = exact_reward,
        n_tasks: int = 64,
        group: int = 8,
        max_new_tokens: int = 8,
        temperature: float = 1.0,
        scale: bool = False,
        reuse: int = 1,
        merge: bool = False,
        spelling: Spelling = CHARACTERS,
        seed: int = 0,
    ):
        if not whole(n_tasks, "n_tasks") <= len(tasks):
            raise ValueError(f"n_tasks={n_tasks}: there are {len(tasks)} tasks; draw fewer, or give more")
        number(temperature, "temperature", 1e-6, wanted="a number above 0: equal answers cannot be compared")
        self.model, self.tasks, self.reward, self.spelling = model, tasks, reward, spelling
        self.n_tasks, self.group = int(n_tasks), whole(group, "group", least=2)
        self.max_new_tokens, self.temperature, self.scale = max_new_tokens, temperature, scale
        self.reuse, self.seed, self.batch = whole(reuse, "reuse"), seed, None
        self.merge = merge

    def __next__(self) -> Rollouts:
        if self.position % self.reuse == 0 or self.batch is None:
            self.batch = self.write(self.position // self.reuse)
        self.position += 1
        return self.batch

    def write(self, place: int) -> Rollouts:
        """Return the batch that the model writes now with the random numbers of `place`."""
        device, end_id = next(self.model.parameters()).device, self.spelling.end_id
        generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + place)
        chosen = torch.randperm(len(self.tasks), generator=generator, device=device)[: self.n_tasks]
        self.drawn = [self.tasks[i] for i in chosen.tolist()]
        prompts = [self.spelling.encode(task.prompt) for task in self.drawn]
        how = self.max_new_tokens, end_id, self.temperature, generator
        written = sample_answers(self.model, prompts, self.group, *how)  # (B, N)
        lengths = answer_lengths(written, end_id)
        self.answers = [
            self.spelling.decode(row[:n]) for row, n in zip(written.tolist(), lengths.tolist(), strict=True)
        ]
        rewards = [self.reward(self.drawn[i // self.group], text) for i, text in enumerate(self.answers)]
        shape = self.n_tasks, self.group
        self.rewards, self.lengths = (
            torch.tensor(rewards, dtype=torch.float32).view(shape),
            lengths.view(shape),
        )
        repeated = [prompt for prompt in prompts for _ in range(self.group)]
        token_ids, mask = join(repeated, written, lengths)
        advantages = group_advantages(self.rewards, self.scale).flatten().to(device)
        batch = Rollouts(token_ids, mask, advantages)
        batch = merge_equal(batch) if self.merge else batch
        return batch._replace(old_log_probs=self.log_probs(batch.token_ids, batch.mask))

    @torch.no_grad()
    def log_probs(self, token_ids: Tensor, mask: Tensor) -> Tensor | None:
        """Return (B, T) of the model that has just written, or None where each batch makes one step."""
        if self.reuse == 1:
            return None
        with evaluating(self.model):
            return token_log_probs(self.model, token_ids, mask)

    def state_dict(self) -> dict:
        """Return what a checkpoint must keep: the place, and a batch that is to come again."""
        again = self.batch is not None and self.position % self.reuse != 0
        return {**super().state_dict(), "batch": self.batch._asdict() if again else None}

    def load_state_dict(self, state: dict) -> None:
        """Go to the saved place. Raises ValueError if the tasks or the batches are others."""
        super().load_state_dict(state)
        self.batch = None if state["batch"] is None else Rollouts(**state["batch"])

    def _identity(self) -> dict:
        names = ("seed", "n_tasks", "group", "max_new_tokens", "temperature", "scale", "reuse", "merge")
        tasks = zlib.crc32(repr([(task.prompt, task.answer) for task in self.tasks]).encode())
        return {name: getattr(self, name) for name in names} | {
            "n_all_tasks": len(self.tasks),
            "tasks": tasks,
        }


@torch.no_grad()
def divergence(model: GPT, reference: GPT, batch: Rollouts) -> float:
    """Return how far the model has gone from a reference: the mean over answers of KL(model ‖ reference), in nats.

    At each token of an answer that the model wrote, both say what they hold possible next; the sum of
    these divergences over an answer estimates that of whole answers, without an error of its own.
    """
    inputs, counts = batch.token_ids[:, :-1], batch.mask[:, 1:]
    with evaluating(model), evaluating(reference):
        mine, theirs = (wide(each(inputs)).log_softmax(-1) for each in (model, reference))  # (B, T-1, V)
    apart = (mine.exp() * (mine - theirs)).sum(-1)  # (B, T-1)
    return apart.masked_fill(~counts, 0).sum(-1).mean().item()
