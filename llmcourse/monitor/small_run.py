"""A small healthy training run, a second long: what `diagnose` and `compare_run` were measured on.

`healthy_setup` returns its parts, so that a bug can change one of them before `run_setup` trains.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmcourse.data.batches import TokenBatches
from llmcourse.data.sources.characters import Characters, load_characters
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.monitor.run_record import Run, record_run
from llmcourse.optim import AdamW, parameter_groups
from llmcourse.schedules import warmup_cosine

STEPS, CONTEXT, BATCH = 160, 64, 8


@dataclass
class Setup:
    """The parts of a run, before it begins: what a bug may change."""

    seed: int
    model: GPT
    optimizer: torch.optim.Optimizer
    batches: TokenBatches
    train_ids: Tensor
    validation_ids: Tensor
    steps: int = STEPS
    evaluate: Callable = evaluate_loss
    options: dict = field(default_factory=dict)


@functools.cache
def characters() -> Characters:
    """Return the small text of characters, read once."""
    return load_characters(quiet=True)


def healthy_setup(seed: int, steps: int = STEPS, lr: float = 3e-3, device="cpu", **changes) -> Setup:
    """Return the parts of the healthy run; `changes` are fields of ModelConfig."""
    text = characters()
    torch.manual_seed(seed)
    parts = dict(context_length=CONTEXT, d_model=64, n_layers=1, mlp="gelu", dropout=0.2)
    model = GPT(ModelConfig(text.vocab_size, **{**parts, **changes})).to(device)
    optimizer = AdamW(parameter_groups(model, weight_decay=0.1), lr=lr, betas=(0.9, 0.95))
    batches = TokenBatches(text.train, BATCH, CONTEXT, seed=seed)
    validation_ids = text.validation[: 40 * CONTEXT + 1]
    schedule = warmup_cosine(steps, warmup_steps=min(40, steps), final_factor=0.1)
    options = dict(schedule=schedule)
    return Setup(seed, model, optimizer, batches, text.train, validation_ids, steps, options=options)


def run_setup(setup: Setup) -> Run:
    """Train what the set-up holds, and return the record."""
    torch.manual_seed(setup.seed)
    options = dict(optimizer=setup.optimizer, evaluate=setup.evaluate, steps=setup.steps, **setup.options)
    texts = setup.train_ids, setup.validation_ids, characters().decode
    return record_run(setup.model, setup.batches, *texts, **options)


def healthy_run(seed: int, **changes) -> Run:
    """Return the record of the healthy run, which is the same for the same seed and threads."""
    return run_setup(healthy_setup(seed, **changes))


def sick_run(bug: Callable[[Setup], None], seed: int, **changes) -> Run:
    """Return the record of the healthy run with one bug in it."""
    setup = healthy_setup(seed, **changes)
    bug(setup)
    return run_setup(setup)
