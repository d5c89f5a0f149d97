"""The runs of `04c_positions`: four kinds of positions, over seeds, trained on 64 tokens and read on 256.

A run takes some ten seconds; the notebook trains one, and reads the others from data/positions/runs.csv,
which `tools/measure_positions.py` writes.
"""

import csv

import torch
from torch import Tensor

from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.manifest import course_data
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import token_losses
from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import rotary_angles
from llmcourse.schedules import warmup_cosine
from llmcourse.teach import plots
from llmcourse.training import train

KINDS = ("none", "sinusoidal", "learned", "rotary")
SHORT, LONG, WINDOWS, PART = 64, 256, 100, 16  # tokens: trained on, read on; windows; tokens of a part


def load_ids(tokenizer, quiet: bool = False) -> tuple[Tensor, Tensor]:
    """Return the ids of the training plays, and those of `WINDOWS` windows of the unseen ones."""
    train_plays, validation_plays, _ = split_by_title(load_plays(quiet=quiet))
    end_id = tokenizer.special_tokens["<|endoftext|>"]
    parts = ([tokenizer.encode(play.text) for play in p] for p in (train_plays, validation_plays))
    train_ids, unseen = (pack(part, end_id) for part in parts)
    return train_ids, unseen[: WINDOWS * LONG + 1]


def train_with(
    positions: str,
    train_ids: Tensor,
    vocab_size: int,
    seed: int,
    steps: int = 500,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> GPT:
    """Return a small model with these positions, trained on windows of `SHORT` tokens."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size, context_length=LONG, d_model=96, n_heads=4, n_layers=2,
        positions=positions, scaled_embeddings=positions == "sinusoidal",
    )  # fmt: skip
    model = GPT(config).to(device)
    batches = TokenBatches(train_ids, batch_size=8, context_length=SHORT, seed=seed)
    schedule = warmup_cosine(steps, warmup_steps=30, final_factor=0.05)
    for _ in train(model, batches, steps=steps, lr=4e-3, schedule=schedule, dtype=dtype):
        pass
    return model.eval()


def loss_by_position(model: GPT, unseen: Tensor) -> Tensor:
    """Return (LONG,): the loss in nats at each position of a window, the mean over all windows."""
    return token_losses(model, unseen).view(WINDOWS, LONG).mean(0)


def with_base(model: GPT, base: float) -> GPT:
    """Give a rotary model the tables of another base, and return it; nothing is trained."""
    config, device = model.config, model.rotary_cos.device
    tables = rotary_angles(config.context_length, config.d_model // config.n_heads, base)
    model.rotary_cos, model.rotary_sin = (table.to(device) for table in tables)
    return model


def read_runs() -> dict[tuple[str, float], Tensor]:
    """Return the stored losses: for each kind and base, (seeds, parts) means over `PART` positions.

    >>> {kind for kind, base in read_runs()} == set(KINDS)
    True
    """
    found: dict[tuple[str, float], dict] = {}
    with (course_data() / "positions" / "runs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seeds = found.setdefault((row["positions"], float(row["base"])), {})
            seeds.setdefault(row["seed"], []).append(float(row["loss"]))
    return {key: torch.tensor(list(seeds.values())) for key, seeds in found.items()}


def draw(curves: dict[str, Tensor], title: str) -> None:
    """Draw the losses of parts (parts,) over the position of their middle, and a line where training ended."""
    middle = range(PART // 2, LONG, PART)
    lines = {name: (middle, losses) for name, losses in curves.items()}
    labels = ("position in the window", "loss (nats per token)", title)
    axis = plots.lines(lines, *labels, marker=".")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.axvline(SHORT, color="0.5", linewidth=1)
    axis.annotate("trained up to here", (SHORT + 2, axis.get_ylim()[1]), va="top", fontsize=8)
