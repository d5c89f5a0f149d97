"""A loss spike on purpose, and the parts of a guard: notice it, keep snapshots, go back."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import torch

from llmcourse.data.batches import Batch
from llmcourse.monitor.small_run import BATCH, CONTEXT, Setup, characters
from llmcourse.training import Step, train


def noisy_batches(setup: Setup, first: int, n_bad: int) -> Iterator[Batch]:
    """Yield the batches of a set-up; numbers first to first + n_bad - 1 are random characters."""
    generator = torch.Generator().manual_seed(setup.seed)
    for number, (inputs, targets) in enumerate(setup.batches, start=1):
        if first <= number < first + n_bad:
            rows = torch.randint(characters().vocab_size, (BATCH, CONTEXT + 1), generator=generator)
            inputs, targets = rows[:, :-1], rows[:, 1:]
        yield inputs, targets


def train_from(setup: Setup, batches: Iterable[Batch], done: int) -> Iterator[Step]:
    """Train to the end of the run, `done` steps of which are made, at the learning rates of that place."""
    schedule = setup.options["schedule"]
    return train(
        setup.model,
        batches,
        steps=setup.steps - done,
        optimizer=setup.optimizer,
        schedule=lambda step: schedule(done + step),
    )


def is_spike(step: Step, history: Sequence[Step], factor: float = 3, first: int = 60) -> bool:
    """Say whether the gradient norm exceeds `factor` times the median of the last thirty, after step `first`."""
    if step.step <= first:
        return False
    return step.grad_norm > factor * median(s.grad_norm for s in history[-30:])


def snapshot(setup: Setup):
    """Return a copy of the weights and of the optimizer's state."""
    return copy.deepcopy((setup.model.state_dict(), setup.optimizer.state_dict()))


def restore(setup: Setup, kept) -> None:
    """Put back what `snapshot` returned."""
    weights, moments = kept
    setup.model.load_state_dict(weights)
    setup.optimizer.load_state_dict(moments)
