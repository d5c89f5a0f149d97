"""A run with canaries: speeches of plays with secrets between them, a small model, and what it gives away.

Small enough to be repeated while one waits. The unit that private training protects is a row.

Dimensions: N rows, T tokens of a row.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmcourse.data.batches import IGNORE
from llmcourse.data.cleaning.dedup import exact_duplicates
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, token_losses
from llmcourse.losses import Loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_course_model
from llmcourse.safety.accountant import epsilon
from llmcourse.safety.memorization import Canary, canary_exposures, plant
from llmcourse.safety.private import PoissonBatches, PrivateOptimizer, private_loss, row_losses
from llmcourse.schedules import warmup_linear
from llmcourse.support.inputs import whole
from llmcourse.tokenizer import BPETokenizer
from llmcourse.training import train

N_MERGES = 255  # with the bytes and the end of a text, 512 tokens
CONTEXT = 64
HELD_OUT_BYTES = 40_000


class Speeches(NamedTuple):
    """Texts of plays that no run mixes: to plant in, to begin from, and to judge by."""

    private: list[str]
    public: list[str]
    held_out: str


@cache
def small_tokenizer() -> BPETokenizer:
    """Return the course's tokenizer with its first merges alone: a small model has no room for 2,048 tokens."""
    return BPETokenizer.from_merges(list(load_course_model("pretrained")[1].merges)[:N_MERGES])


def load_speeches(n_private: int = 400, n_public: int = 8000) -> Speeches:
    """Return speeches and stage directions of the training plays, and the beginning of the validation text."""
    training, validation, _ = split_by_title(load_plays(quiet=True))
    texts = [text for play in training for text in play.text.split("\n\n")]
    n_private, n_public = whole(n_private, "n_private"), whole(n_public, "n_public", 0)
    held_out = "\n\n".join(play.text for play in validation)[:HELD_OUT_BYTES]
    return Speeches(texts[:n_private], texts[len(texts) - n_public :], held_out)


def small_model(seed: int) -> GPT:
    """Return a model of 131,000 parameters with a random start: no dropout, as private training asks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = dict(context_length=CONTEXT, d_model=64, n_heads=4, n_layers=2)
        return GPT(ModelConfig(small_tokenizer().vocab_size, **sizes))


def without_copies(texts: Sequence[str]) -> list[str]:
    """Return `texts` without those that stood before, by `data.cleaning.dedup.exact_duplicates`.

    >>> without_copies(["Go.", "Stay.", "GO!"])
    ['Go.', 'Stay.']
    """
    copies = set(exact_duplicates(texts))
    return [text for place, text in enumerate(texts) if place not in copies]


def rows_of(documents: Sequence[Sequence[int]], length: int, end_id: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), each (N, T): documents in order, as many in a row as find room, none cut.

    One longer than a row is cut into parts of `length` tokens. Each row begins with `end_id`, which also
    closes each document. What is left of a row has the target IGNORE. Raises ValueError without a document.

    >>> rows_of([[5, 6], [7], [8, 9, 10]], length=5, end_id=0)[1].tolist()
    [[5, 6, 0, 7, 0], [8, 9, 10, 0, -100]]
    """
    length, rows = whole(length, "length"), [[end_id]]
    for document in documents:
        ids = [*document, end_id]
        for part in (ids[i : i + length] for i in range(0, len(ids), length)):
            if len(rows[-1]) + len(part) > length + 1:
                rows.append([end_id])
            rows[-1] += part
    if not documents:
        raise ValueError("the corpus is empty: give at least one document")
    filled = torch.full((len(rows), length + 1), IGNORE)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = torch.tensor(row)
    return filled[:, :-1].where(filled[:, :-1] != IGNORE, end_id), filled[:, 1:]


def plain_row_loss(batch_size: float) -> Loss:
    """Return what `private_loss` is without clipping: the sum of `row_losses`, over the expected number of rows."""

    def loss(model: GPT, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float, Tensor]:
        losses = row_losses(model, batch)
        return losses.sum(), batch_size, losses.mean() * batch_size

    return loss


def train_on_rows(
    model: GPT,
    rows: tuple[Tensor, Tensor],
    *,
    steps: int,
    seed: int,
    lr: float = 1e-2,
    batch_size: int = 32,
    clip: float | None = None,
    noise_multiplier: float = 0.0,
) -> float:
    """Train `model` in place on rows drawn by chance; return ε at δ = 1 / N, infinite without noise.

    All runs draw their batches alike (`PoissonBatches`), so that those with `clip` and with noise differ
    in nothing else.
    """
    n, rate = len(rows[0]), batch_size / len(rows[0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    loss: Loss = plain_row_loss(batch_size)
    if clip is not None:
        loss = private_loss(clip, batch_size)
        optimizer = PrivateOptimizer(optimizer, noise_multiplier, clip, batch_size, seed)
    batches = PoissonBatches(rows, rate, seed)
    options = dict(schedule=warmup_linear(steps, min(20, steps // 4)), clip=None)
    for _ in train(model, batches, steps=steps, loss=loss, optimizer=optimizer, **options):
        pass
    model.eval()
    return epsilon(rate, noise_multiplier if clip is not None else 0.0, steps, 1 / n)[0]


def held_out_bits(model: GPT, text: str) -> float:
    """Return the bits per byte of a text that no run has seen."""
    ids = torch.tensor(small_tokenizer().encode(text))
    losses = token_losses(model, ids)
    return bits_per_byte(losses.mean().item(), len(losses), len(text.encode()))


def canary_rows(
    texts: Sequence[str], canaries: Sequence[Canary], seed: int, deduplicate: bool = False
) -> tuple[Tensor, Tensor]:
    """Return rows of `texts` with the canaries planted between them; `deduplicate` drops all copies after that."""
    planted, tokenizer = plant(texts, canaries, seed), small_tokenizer()
    planted = without_copies(planted) if deduplicate else planted
    end_id = tokenizer.special_tokens["<|endoftext|>"]
    return rows_of([tokenizer.encode(text) for text in planted], CONTEXT, end_id)


def live_exposures(
    canaries: Sequence[Canary], seed: int, deduplicate: bool = False
) -> tuple[GPT, np.ndarray]:
    """Return a small model trained on planted speeches, and the exposure of each canary in bits: ten seconds."""
    model = small_model(seed)
    train_on_rows(
        model, canary_rows(load_speeches().private, canaries, seed, deduplicate), steps=150, seed=seed
    )
    return model, canary_exposures(model, small_tokenizer(), canaries)
