"""One family of models that differ in width alone, trained on the plays: what scaling laws are fitted to.

Two layers of Llama's parts, heads of 16 numbers, the tokens of the course model; rows of 64 tokens.

Dimensions: B batch, T time, N windows of text.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from llmcourse.config import ModelConfig
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte
from llmcourse.losses import mean_loss
from llmcourse.model import GPT
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import evaluating
from llmcourse.schedules import warmup_stable_decay
from llmcourse.support.inputs import whole
from llmcourse.tokenizer import END_OF_TEXT
from llmcourse.training import train
from llmcourse.tune.mup import MuPConfig, MuPGPT, width_groups

CONTEXT, BATCH, HEAD, BASE, WINDOWS = 64, 8, 16, 32, 256


class Text(NamedTuple):
    """The ids to train on, (tokens,), and the windows (N, T) to be predicted, with their size in bytes."""

    vocab_size: int
    train: Tensor
    inputs: Tensor
    targets: Tensor
    n_bytes: int


def load_text() -> Text:
    """Return the plays as tokens of the course model, and 256 windows spread over the validation plays."""
    tokenizer = load_course_model("pretrained")[1]
    end = tokenizer.special_tokens[END_OF_TEXT]
    parts = split_by_title(load_plays())[:2]
    ids, held_out = (pack([tokenizer.encode(play.text) for play in part], end) for part in parts)
    starts = torch.linspace(0, len(held_out) - CONTEXT - 1, WINDOWS).long()
    rows = held_out[starts[:, None] + torch.arange(CONTEXT + 1)]
    n_bytes = sum(len(tokenizer.decode_bytes(row[1:].tolist())) for row in rows)
    return Text(tokenizer.vocab_size, ids, rows[:, :-1], rows[:, 1:], n_bytes)


def make_width(width: int, vocab_size: int, mup: bool = True) -> GPT:
    """Return a new model of this width: in muP, with the width 32 as its base, or in the usual way.

    Draws from torch's global generator. Raises ValueError for a width that 16 does not divide.

    >>> make_width(32, 300, mup=False).n_parameters()
    34848
    """
    if whole(width, "width") % HEAD:
        raise ValueError(f"width={width}: must be a multiple of {HEAD}, the width of a head")
    base = ModelConfig(vocab_size, CONTEXT, BASE, n_heads=BASE // HEAD, n_layers=2)
    config = replace(base, d_model=width, n_heads=width // HEAD)
    return MuPGPT(MuPConfig.of(config, base)) if mup else GPT(config)


def train_width(text: Text, width: int, steps: int, lr: float, seed: int, mup: bool = True) -> float:
    """Train a new model of this width by AdamW; return its loss on the held-out windows, in bits per byte.

    The rate rises over a tenth of the steps and falls to 0 over the last half. A batch is 8 rows of 64
    tokens; the seed decides weights and batches. A run whose loss is not finite gives inf.
    """
    torch.manual_seed(seed)
    model = make_width(width, text.vocab_size, mup)
    batches = TokenBatches(text.train, BATCH, CONTEXT, seed=seed)
    optimizer = torch.optim.AdamW(width_groups(model, lr), betas=(0.9, 0.95), fused=True)
    schedule = warmup_stable_decay(steps, steps // 10, steps // 2)
    try:
        for _ in train(model, batches, steps=steps, optimizer=optimizer, schedule=schedule):
            pass
    except FloatingPointError:
        return float("inf")
    return held_out_bits(model, text)


@torch.no_grad()
def held_out_bits(model: GPT, text: Text) -> float:
    """Return the bits per byte that the model needs for the held-out windows."""
    with evaluating(model):
        pairs = zip(text.inputs.split(64), text.targets.split(64), strict=True)
        loss = sum(mean_loss(model, pair).item() * pair[0].numel() for pair in pairs) / text.inputs.numel()
    return bits_per_byte(loss, text.targets.numel(), text.n_bytes)
