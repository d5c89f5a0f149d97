"""Going on with a run: to the bit with unchanged arguments; a changed one is used, or named.

The expectation is the run that was never interrupted, and for a changed option, the steps of torch's
own optimizers loaded by hand.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from llmcourse.data.batches import TokenBatches
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import AdamW, muon_and_adamw, parameter_groups
from llmcourse.training import train

V, T = 11, 6
IDS = torch.randint(0, V, (400,), generator=torch.Generator().manual_seed(0))
FLOAT = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
OPTIMIZERS = {
    "default": lambda model: None,
    "AdamW by hand": lambda model: AdamW(parameter_groups(model, 0.1), lr=3e-3),
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "Muon": muon_and_adamw,
    "RMSprop": lambda model: torch.optim.RMSprop(parameter_groups(model, 0.1), lr=1e-3),
    "state in the group": lambda model: CountsInItsGroup(model.parameters(), lr=0.1),
}


class CountsInItsGroup(torch.optim.SGD):
    """As schedule-free optimizers do, it keeps a number that changes among the options."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        for group in self.param_groups:
            group["k"] = 0

    def step(self):
        for group in self.param_groups:
            group["k"] += 1
            group["lr"] /= group["k"]
        super().step()


def make_model(seed: int = 0, **changes) -> GPT:
    shape = dict(context_length=T, d_model=8, n_heads=2, n_layers=1, d_ff=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(ModelConfig(V, **{**shape, **changes}))


def make_net(seed: int = 0, width: int = 8) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Embedding(V, width), nn.Dropout(0.1), nn.Linear(width, V))


def make_batches(seed: int = 3, batch_size: int = 2) -> TokenBatches:
    return TokenBatches(IDS, batch_size=batch_size, context_length=T, seed=seed)


def halves(path, make=make_net, optimizer=lambda model: None, done=3, steps=6, then=None, **options):
    """Train `done` steps, then go on with new objects and the arguments `then`; return what went on."""
    first, second = make(0), make(1)
    torch.manual_seed(5)
    run = dict(lr=1e-2, checkpoint=path) | options
    list(train(first, make_batches(), steps=done, optimizer=optimizer(first), **run))
    run |= {"steps": steps, "resume": True} | (then or {})
    batches = run.pop("batches", make_batches())
    torch.manual_seed(6)
    return [
        (s.step, s.loss, s.lr)
        for s in train(second, batches, optimizer=run.pop("optimizer", optimizer)(second), **run)
    ]


# ---- unchanged: to the bit ------------------------------------------------------------------

SWITCHES = {
    "norm": ["rms", "layer"],
    "tied_embeddings": [True, False],
    "dropout": [0.0, 0.3],
    "n_layers": [1, 2],
    "embedding_shift": [0, 1],
    "value_embeddings": [False, True],
}


@dataclass
class Case:
    """One way to train, and where it stops."""

    path: Path
    kind: str
    precision: str
    accumulate: int
    every: int | None
    changes: dict

    def run(self, steps: int, seed: int, compiled: bool, stop_at: int | None = None):
        """Train with new objects, as a new process would; return what was seen, and the weights."""
        model = make_model(seed, **self.changes)
        optimizer = OPTIMIZERS[self.kind](model)
        torch.manual_seed(seed)
        options = dict(checkpoint=self.path, checkpoint_every=self.every, resume=True)
        options |= dict(optimizer=optimizer, dtype=FLOAT[self.precision], accumulate=self.accumulate)
        seen = []
        with torch.compiler.set_stance("force_eager"):  # the wrapper with its names, and the same numbers
            called = torch.compile(model, backend="eager") if compiled else model
            for step in train(called, make_batches(), steps=steps, schedule=lambda i: 1 / (1 + i), **options):
                seen.append(repr((step.step, step.loss, step.lr, step.grad_norm, step.tokens)))
                if step.step == stop_at:
                    break
        return seen, model.state_dict()


@pytest.mark.parametrize(("kind", "precision"), sorted(itertools.product(OPTIMIZERS, FLOAT)))
def test_a_run_in_two_parts_equals_one_in_one(tmp_path, kind, precision):
    """Two configurations each, drawn from all switches, and both parts with and without torch.compile."""
    drawn = random.Random(f"{kind} {precision}")
    for accumulate in (1, 2):
        changes = {name: drawn.choice(values) for name, values in SWITCHES.items()}
        case = Case(tmp_path / "run.pt", kind, precision, accumulate, drawn.choice([None, 2]), changes)
        whole, wanted = case.run(4, 0, False)
        for compiled_first, compiled_then in itertools.product([False, True], repeat=2):
            case.path.unlink()
            first, _ = case.run(4, 0, compiled_first, stop_at=drawn.randint(1, 3))
            rest, state = case.run(4, 1, compiled_then)
            assert first + rest == whole, case
            assert all(torch.equal(state[name], wanted[name]) for name in wanted), case
        case.path.unlink()
