"""Recipes: everything that decides a training run, in one frozen record."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llmcourse.data.batches import TokenBatches
from llmcourse.model import GPT
from llmcourse.optim import hidden_and_other_groups, muon_and_adamw
from llmcourse.schedules import Schedule, constant, warmup_cosine, warmup_linear, warmup_stable_decay
from llmcourse.training import Step, train
from llmcourse.tune.techniques import make_config, make_model

SCHEDULES = ("constant", "linear", "cosine", "stable_decay")


@dataclass(frozen=True)
class Recipe:
    """A run, but for the text and the seed. `config` holds the fields of `ModelConfig`
    and `TechniqueConfig` to set.

    `muon_lr=None` trains everything with AdamW; `hidden_lr` then is the rate of the matrices inside
    the blocks, and `lr` that of the rest (None: `lr` for all). The schedule rises over `warmup_steps`, then falls
    to `final_factor` ("stable_decay": over its last half). `dtype` is the precision of the matrix
    products; `accumulate` batches make one step. Raises ValueError for a bad schedule.

    >>> NANOGPT.change(steps=10, n_layers=1).config["n_layers"]
    1
    """

    config: dict = field(default_factory=dict)
    batch_size: int = 12
    accumulate: int = 1
    steps: int = 2000
    lr: float = 1e-3
    muon_lr: float | None = None
    hidden_lr: float | None = None
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    schedule: str = "linear"
    warmup_steps: int = 0
    final_factor: float = 0.0
    clip: float | None = 1.0
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r} is unknown: choose one of {SCHEDULES}")

    def change(self, **changes) -> "Recipe":
        """Return the recipe with other values; names of the configuration's fields change the model."""
        own = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
        return replace(self, **own, config=self.config | own.get("config", {}) | changes)

    def build(self, vocab_size: int, seed: int) -> GPT:
        """Return the model with its random start; raises TypeError for an unknown field."""
        torch.manual_seed(seed)
        return make_model(make_config(vocab_size, **self.config))

    def factors(self) -> Schedule:
        """Return the schedule: a function from the step to a factor."""
        if self.schedule == "stable_decay":
            return warmup_stable_decay(self.steps, self.warmup_steps, self.steps // 2)
        if self.schedule == "constant":
            return constant
        shape = warmup_cosine if self.schedule == "cosine" else warmup_linear
        return shape(self.steps, self.warmup_steps, self.final_factor)


def train_recipe(
    recipe: Recipe,
    model: GPT,
    token_ids: Tensor,
    seed: int,
    evaluate: Callable | None = None,
    eval_every=None,
) -> Iterator[Step]:
    """Train `model` on `token_ids` as the recipe says; yields what `train` yields.

    The seed decides the order of the batches: two recipes with equal seed and batch size read
    the same text.
    """
    batches = TokenBatches(token_ids, recipe.batch_size, model.config.context_length, seed=seed)
    optimizer = None  # train's own: AdamW with one rate
    if recipe.muon_lr is not None:
        rates = recipe.muon_lr, recipe.lr, recipe.momentum
        optimizer = muon_and_adamw(model, *rates, recipe.betas, recipe.weight_decay, recipe.dtype)
    elif recipe.hidden_lr is not None:
        hidden, others = hidden_and_other_groups(model, recipe.weight_decay)
        groups = [hidden | dict(lr=recipe.hidden_lr), *others]
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
    return train(
        model,
        batches,
        steps=recipe.steps,
        lr=recipe.lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        optimizer=optimizer,
        schedule=recipe.factors(),
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        dtype=recipe.dtype,
        evaluate=evaluate,
        eval_every=eval_every,
    )


# nanoGPT's documented recipe for a CPU (README, "I only have a macbook"): 4 layers of width 128.
NANOGPT = Recipe(
    config=dict(
        context_length=64, d_model=128, n_heads=4, n_layers=4, norm="layer", positions="learned", mlp="gelu",
        bias=False, tied_embeddings=True,
    ),
    batch_size=12, steps=2000, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, schedule="cosine",
    warmup_steps=100, final_factor=0.1,
)  # fmt: skip

# The start of the ablation: small and without tricks; its rates are tuned for it.
PLAIN = Recipe(
    config=dict(
        context_length=64, d_model=48, n_heads=3, n_layers=2, norm="layer", positions="learned", mlp="gelu",
        bias=False, tied_embeddings=True,
    ),
    batch_size=12, steps=250, lr=5e-3, betas=(0.9, 0.99), weight_decay=0.1, schedule="linear", warmup_steps=20,
)  # fmt: skip

# What the techniques that paid arrive at: NANOGPT's loss in a small share of its time.
FAST = Recipe(
    config=dict(
        context_length=64, d_model=64, n_heads=2, n_layers=1, d_ff=256, norm="layer", positions="none", mlp="relu",
        bias=False, tied_embeddings=False, embedding_shift=3, embedding_std=0.1, zero_init=True,
    ),
    batch_size=20, steps=240, lr=1e-2, muon_lr=0.08, momentum=0.8, betas=(0.8, 0.99), weight_decay=0.0,
    schedule="linear", clip=None,
)  # fmt: skip

# The same techniques, with the time of NANOGPT to spend: a wider and a second layer, rotary positions
# and a shift in the layers, a warmup, two batches a step, and products in bfloat16, which pays where
# the processor multiplies in it (AMX on a CPU).
STRONG = FAST.change(
    d_model=128, n_layers=2, n_heads=4, d_ff=768, positions="rotary", embedding_shift=1, token_shift=True,
    accumulate=2, steps=1380, muon_lr=0.05, momentum=0.9, betas=(0.9, 0.99), warmup_steps=60, clip=1.0,
    dtype=torch.bfloat16,
)  # fmt: skip
