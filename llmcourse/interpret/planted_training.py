"""Circuits that training finds where it must: only chosen heads can carry anything about the text.

All other heads keep random weights. They attend and write, but in training each text gets what they wrote
in another text of the batch: whoever relied on them would err. So the truth is known, though nobody wrote the weights.

Dimensions: B texts, T time, H heads, C width, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.config import ModelConfig
from llmcourse.interpret.ablation import by_layer, replace_heads
from llmcourse.interpret.hooks import hooked
from llmcourse.interpret.planted import Planted
from llmcourse.interpret.planted_tasks import TASKS
from llmcourse.interpret.planted_texts import LENGTH, VOCABULARY
from llmcourse.model import GPT
from llmcourse.schedules import warmup_linear
from llmcourse.support.inputs import whole
from llmcourse.training import train

N_LAYERS, N_HEADS, D_MODEL = 2, 4, 64
Place = tuple[int, int]  # (layer, head)


@dataclass
class PairBatches:
    """Endless batches of (texts (B, T), answers (B,)) of a task: clean ones and their corrupted twins."""

    task: str
    batch_size: int
    generator: torch.Generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        pairs = TASKS[self.task].texts(self.batch_size // 2, self.generator)
        return torch.cat([pairs.clean, pairs.corrupted]), torch.cat([pairs.answer, pairs.other_answer])


def answer_loss(model: GPT, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Return (cross-entropy in nats, number of texts) of the answers (B,) behind texts (B, T)."""
    texts, answers = batch
    return F.cross_entropy(model(texts)[:, -1].float(), answers, reduction="sum"), len(answers)


def train_planted(
    task: str, heads: Iterable[Place], seed: int = 0, steps: int = 600, lr: float = 3e-3
) -> Planted:
    """Return a GPT of two layers of four heads, trained on `task` so that only `heads` can carry what it needs.

    They are what a method should find, if the model solves the task, and if it does not with one of them less.
    Raises ValueError for an unknown task and for a head that does not exist.

    Source: the idea of strict interchange training, Gupta et al. 2024, arXiv:2407.14494, sec. 3.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose one of {sorted(TASKS)}")
    every = {(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)}
    heads = set(heads)
    if heads - every:
        raise ValueError(f"head {min(heads - every)} does not exist: heads are (0, 0) to {max(every)}")
    seed = whole(seed, "seed", least=0)
    generator = torch.Generator().manual_seed(seed)
    model = _new_model(seed, every - heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    handles = _freeze(model, every - heads)
    try:
        with hooked(model, exchange_rows(every - heads, generator)):
            batches = PairBatches(task, 128, generator)
            how = dict(loss=answer_loss, optimizer=optimizer, schedule=warmup_linear(steps, 20, 0.1))
            for _ in train(model, batches, steps=steps, **how):
                pass
    finally:
        for handle in handles:
            handle.remove()
    roles = dict.fromkeys(sorted(heads), "trained")
    return Planted(task, model.eval(), roles, dict.fromkeys(sorted(every - heads), "random"))


def exchange_rows(heads: Iterable[Place], generator: torch.Generator) -> dict:
    """Return edits for `hooked` that give each text what `heads` wrote in another text of the batch."""

    def edit(some: list[int], x: Tensor) -> Tensor:
        by = int(torch.randint(1, len(x), (1,), generator=generator))
        return replace_heads(some, x.roll(by, dims=0))(x)

    return {f"blocks.{layer}.attention.heads": partial(edit, some) for layer, some in by_layer(heads).items()}


def _new_model(seed: int, frozen: Iterable[Place]) -> GPT:
    """Return a GPT whose `frozen` heads have weights so large that they attend and write."""
    torch.manual_seed(seed)
    shape = dict(d_model=D_MODEL, n_layers=N_LAYERS, n_heads=N_HEADS, d_ff=D_MODEL)
    model = GPT(
        ModelConfig(VOCABULARY, LENGTH, **shape, positions="learned", mlp="relu", tied_embeddings=False)
    )
    with torch.no_grad():
        for layer, qkv, out in _parts_of(model, frozen):
            layer.qkv.weight[qkv] *= 10
            layer.out.weight[:, out] *= 5
    return model


def _parts_of(model: GPT, heads: Iterable[Place]) -> Iterator[tuple]:
    """Yield (attention, rows of qkv, columns of out) of each head."""
    for layer, head in sorted(heads):
        attention = model.blocks[layer].attention
        D = attention.d_head
        columns = torch.arange(head * D, (head + 1) * D)
        rows = torch.cat([columns + part * attention.n_heads * D for part in range(3)])
        yield attention, rows, columns


def _freeze(model: GPT, heads: Iterable[Place]) -> list:
    """Take the gradient away from the weights of `heads`; return handles that give it back."""
    handles = []
    for attention, rows, columns in _parts_of(model, heads):
        handles.append(attention.qkv.weight.register_hook(partial(_without, rows, 0)))
        handles.append(attention.out.weight.register_hook(partial(_without, columns, 1)))
    return handles


def _without(index: Tensor, dim: int, gradient: Tensor) -> Tensor:
    return gradient.index_fill(dim, index, 0.0)
