"""One family of models that differ in width alone, trained on the plays: what scaling laws are fitted to.

Two layers of Llama's parts, heads of 16 numbers, rows of 64 tokens; the first 255 merges of the course
model's tokenizer, so that most of the work is in the blocks. Both ends are matrices of their own, and the
weights start wide, matrices in blocks near 1/√(terms that they add up): tied, or from 0.02 everywhere, such
short runs stay near the frequencies of single tokens for most of their steps, and seeds differ in when they
leave them.

Dimensions: B batch, T time, N windows of text.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llmcourse.config import ModelConfig
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte
from llmcourse.losses import mean_loss
from llmcourse.model import GPT
from llmcourse.optim import is_hidden_matrix
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import evaluating
from llmcourse.schedules import warmup_stable_decay
from llmcourse.support.inputs import whole
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer
from llmcourse.training import train
from llmcourse.tune.costs import count_parameters
from llmcourse.tune.mup import MuPConfig, MuPGPT, width_groups, width_ratio

CONTEXT, BATCH, HEAD, BASE, LAYERS = 64, 8, 16, 32, 2
MERGES, WINDOWS, EMBEDDING_STD, HIDDEN_GAIN = 255, 256, 0.5, 8.0


class Text(NamedTuple):
    """The ids to train on, (tokens,), and the windows (N, T) to be predicted, with their size in bytes."""

    vocab_size: int
    train: Tensor
    inputs: Tensor
    targets: Tensor
    n_bytes: int


def load_text() -> Text:
    """Return the plays as 512 kinds of tokens, and 256 windows spread over the validation plays."""
    tokenizer = load_course_model("pretrained")[1]
    tokenizer = BPETokenizer.from_merges(list(tokenizer.merges)[:MERGES])
    end = tokenizer.special_tokens[END_OF_TEXT]
    parts = split_by_title(load_plays())[:2]
    ids, held_out = (pack([tokenizer.encode(play.text) for play in part], end) for part in parts)
    starts = torch.linspace(0, len(held_out) - CONTEXT - 1, WINDOWS).long()
    rows = held_out[starts[:, None] + torch.arange(CONTEXT + 1)]
    n_bytes = sum(len(tokenizer.decode_bytes(row[1:].tolist())) for row in rows)
    return Text(tokenizer.vocab_size, ids, rows[:, :-1], rows[:, 1:], n_bytes)


def config_of(width: int, vocab_size: int = 257 + MERGES) -> ModelConfig:
    """Return the plain configuration of this width. Raises ValueError for a width that 16 does not divide.

    >>> config_of(64).n_heads
    4
    """
    if whole(width, "width") % HEAD:
        raise ValueError(f"width={width}: must be a multiple of {HEAD}, the width of a head")
    heads = width // HEAD
    return ModelConfig(vocab_size, CONTEXT, width, heads, n_layers=LAYERS, tied_embeddings=False)


def hidden_parameters(width: int) -> int:
    """Return N, the parameters without the two ends: what a law of sizes is fitted to.

    >>> hidden_parameters(32), hidden_parameters(128)
    (25248, 395904)
    """
    counts = count_parameters(config_of(width))
    return sum(counts.values()) - counts["token embedding"] - counts["unembedding"]


def make_width(width: int, vocab_size: int = 257 + MERGES, mup: bool = True) -> GPT:
    """Return a new model of this width: in muP, with the width 32 as its base, or in the usual way.

    Both start alike; what differs is by what scores and logits are divided, and the rates of `width_groups`.
    Draws from torch's global generator. Raises ValueError as `config_of` does.

    >>> make_width(32).n_parameters()
    58016
    """
    config, base = config_of(width, vocab_size), config_of(BASE, vocab_size)
    like_base = MuPConfig.of(config, base)
    model = MuPGPT(like_base) if mup else GPT(config)
    nn.init.normal_(model.token_embedding.weight, std=EMBEDDING_STD)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_hidden_matrix(name, parameter):  # in muP it was divided by the root of its ratio before
                parameter.mul_(HIDDEN_GAIN if mup else HIDDEN_GAIN / math.sqrt(width_ratio(like_base, name)))
    return model


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
