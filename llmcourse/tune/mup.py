"""Maximal update parametrization (muP): widths that learn alike, so that one learning rate serves them all.

Wider matrices add up more terms. A muP model says which smaller one, its base, it is to learn like; the
number by which each of its matrices adds up more terms is its ratio. At the base itself nothing changes.

Dimensions: B batch, T time, C width (d_model), H heads, D head width, V vocabulary, W widths, S steps.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from llmcourse.attention import MultiHeadAttention
from llmcourse.config import ModelConfig
from llmcourse.data.batches import Batch, to_device
from llmcourse.model import GPT, Block
from llmcourse.optim import is_hidden_matrix
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number, number_row, whole
from llmcourse.training import train
from llmcourse.weights import unwrap

SIZES = {"vocab_size", "context_length", "d_model", "n_heads", "n_kv_heads", "d_head", "n_layers", "d_ff"}
SIZES |= {"dropout", "rotary_scaling"}  # in these a model and its base may differ


@dataclass(frozen=True)
class MuPConfig(ModelConfig):
    """A `ModelConfig` that learns like a smaller one, its `base`. Raises ValueError where it could not.

    >>> MuPConfig.of(ModelConfig(10, d_model=64), base=ModelConfig(10, d_model=16)).base.d_model
    16
    """

    base: ModelConfig | None = None

    def __post_init__(self):
        super().__post_init__()
        if type(self.base) is not ModelConfig:
            raise ValueError(f"base={self.base!r}: give the plain ModelConfig that this one is to learn like")
        for field in fields(ModelConfig):
            mine, its = getattr(self, field.name), getattr(self.base, field.name)
            if field.name not in SIZES and mine != its:
                raise ValueError(
                    f"{field.name}={mine!r}, and {its!r} in the base: they must have equal parts"
                )
        if self.norm_position != "pre":
            raise ValueError("norm_position='post': muP is written here for norms before the parts ('pre')")
        if self.scaled_embeddings:
            raise ValueError("scaled_embeddings=True makes embeddings grow with the width: switch it off")

    @classmethod
    def of(cls, config: ModelConfig, base: ModelConfig) -> "MuPConfig":
        """Return `config` with its base."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)}, base=base)


def _fan_ins(config: ModelConfig) -> dict[str, int]:
    """Return how many terms each matrix of a block adds up for one output."""
    C, HD = config.d_model, config.n_heads * config.head_width
    return {"attention.qkv": C, "attention.out": HD, "mlp.up": C, "mlp.down": config.hidden_width}


def width_ratio(config: ModelConfig, name: str = "unembedding") -> float:
    """Return by what factor the matrix called `name` adds up more terms than in the base; 1 for a plain model.

    >>> config = MuPConfig.of(ModelConfig(10, d_model=64, d_ff=96), base=ModelConfig(10, d_model=16, d_ff=48))
    >>> width_ratio(config), width_ratio(config, "blocks.0.mlp.down.weight")
    (4.0, 2.0)
    """
    if not isinstance(config, MuPConfig):
        return 1.0
    part = ".".join(name.split(".")[2:4])
    mine, its = _fan_ins(config), _fan_ins(config.base)
    return mine[part] / its[part] if part in mine else config.d_model / config.base.d_model


class MuPAttention(MultiHeadAttention):
    """Attention whose scores are divided by D, not by √D: times √D of the base, which changes nothing there."""

    query_factor = 1.0

    def split_heads(self, x: Tensor, rotary=None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v as `MultiHeadAttention` does, with q times √(D of the base / D)."""
        q, k, v = super().split_heads(x, rotary)
        return q * self.query_factor, k, v


class MuPBlock(Block):
    """A block with `MuPAttention`."""

    attention_type = MuPAttention

    def __init__(self, config: MuPConfig):
        super().__init__(config)
        self.attention.query_factor = math.sqrt(config.base.head_width / config.head_width)


class MuPGPT(GPT):
    """A GPT in muP: at the width of its base the plain GPT, at other widths one that learns like it.

    With r the ratio of a matrix, matrices in blocks start with a deviation smaller by √r (and get a
    rate smaller by r from `width_groups`), logits are divided by r, scores by the head's width.
    Embeddings, gains and biases stay as they are, so that an embedding can also be the unembedding.

    >>> config = ModelConfig(vocab_size=10, d_model=32, n_layers=1)
    >>> model = MuPGPT(MuPConfig.of(config, base=ModelConfig(vocab_size=10, d_model=8, n_layers=1)))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 10])

    Source: Yang et al. 2022, arXiv:2203.03466, table 8 and definition 4.1.
    """

    config_type, block_type = MuPConfig, MuPBlock

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights as a GPT does; then divide each matrix in a block by the root of its ratio."""
        super().initialize()
        for name, parameter in self.named_parameters():
            if is_hidden_matrix(name, parameter):
                parameter.div_(math.sqrt(width_ratio(self.config, name)))

    def forward(self, token_ids: Tensor, mask: Tensor | None = None, caches=None, start=None) -> Tensor:
        """Return logits (B, T, V) for token_ids (B, T), as a GPT does, divided by the ratio of the width."""
        return super().forward(token_ids, mask, caches, start) / width_ratio(self.config)


def width_groups(model: GPT, lr: float, weight_decay: float = 0.0) -> list[dict]:
    """Return the groups for AdamW: matrices in blocks get lr / r, and decay as much at each step as the others.

    AdamW multiplies a weight by 1 - rate · decay, so a rate divided by r asks for a decay times r. Biases
    and gains do not decay. For a plain GPT every r is 1: the groups of the usual parametrization.
    Raises ValueError for a rate or a decay below 0.

    >>> config = ModelConfig(vocab_size=10, d_model=32, n_layers=1)
    >>> model = MuPGPT(MuPConfig.of(config, base=ModelConfig(vocab_size=10, d_model=8, d_ff=22, n_layers=1)))
    >>> [(group["lr"], group["weight_decay"]) for group in width_groups(model, lr=0.01, weight_decay=0.1)]
    [(0.01, 0.1), (0.01, 0.0), (0.0025, 0.4)]

    Source: Yang et al. 2022, arXiv:2203.03466, table 8 (Adam); the decay as in their package mup 1.0.0.
    """
    lr = number(lr, "lr", low=0.0, wanted="a number that is not negative, such as 3e-3")
    decay = number(weight_decay, "weight_decay", low=0.0, wanted="a number that is not negative, such as 0.1")
    model = unwrap(model)
    ends, vectors, hidden = [], [], defaultdict(list)
    for name, parameter in model.named_parameters():
        if is_hidden_matrix(name, parameter):
            hidden[width_ratio(model.config, name)].append(parameter)
        else:
            (ends if parameter.dim() >= 2 else vectors).append(parameter)
    groups = [{"params": ends, "lr": lr, "weight_decay": decay}]
    groups.append({"params": vectors, "lr": lr, "weight_decay": 0.0})
    return groups + [{"params": p, "lr": lr / r, "weight_decay": decay * r} for r, p in hidden.items()]


@torch.no_grad()
def to_plain(model: MuPGPT) -> GPT:
    """Return a plain GPT that computes the same logits: the factors become part of queries and last gains.

    To be saved, and to write with. Trained further, it would learn as the usual parametrization does.
    """
    model = unwrap(model)
    values = {f.name: getattr(model.config, f.name) for f in fields(ModelConfig)}
    plain = GPT(ModelConfig(**values)).to(model.token_embedding.weight)
    plain.load_state_dict(model.state_dict())
    for block, its in zip(plain.blocks, model.blocks, strict=True):
        attention, queries = block.attention, block.attention.n_heads * block.attention.d_head
        parts = [p[:queries] for p in attention.qkv.parameters()]
        for part in attention.q_norm.parameters() if model.config.qk_norm else parts:
            part.mul_(its.attention.query_factor)
    for gain in plain.final_norm.parameters():
        gain.div_(width_ratio(model.config))
    return plain.train(model.training)


def _activations(model: GPT, inputs: Tensor) -> dict[str, Tensor]:
    """Return what embedding, blocks and last norm hand on, (B, T, C) each, and the logits (B, T, V)."""
    found: dict[str, Tensor] = {}
    parts = {"embedding": model.token_embedding, "last norm": model.final_norm, "logits": model}
    parts |= {f"block {i}": block for i, block in enumerate(model.blocks, start=1)}

    def keep(name):
        return lambda _, __, output: found.update({name: output.detach().double()})

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        with torch.no_grad(), evaluating(model):
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def coordinate_check(
    make: Callable[[int], GPT],
    widths: Sequence[int],
    batch: Batch,
    *,
    steps: int = 3,
    lr: float = 1e-2,
    seeds: Sequence[int] = (0, 1, 2),
    groups: Callable = width_groups,
) -> dict[str, np.ndarray]:
    """Return by how much training changes each activation at each width: part -> (S, W).

    `make(width)` returns a new model, which is trained on the one batch (inputs, targets) by AdamW with
    `groups(model, lr)`. The entry [s, w] is the root of the mean square, over coordinates and seeds, of what
    s + 1 steps changed. In muP it neither grows nor shrinks with the width. Parts: "embedding",
    "block 1"..., "last norm", "logits". Draws from torch's global generator, seeded anew for each run.

    Source: Yang et al. 2022, arXiv:2203.03466, app. D.1.
    """
    steps, squares = whole(steps, "steps"), defaultdict(lambda: np.zeros((steps, len(widths))))
    for w, width in enumerate(widths):
        for seed in seeds:
            torch.manual_seed(seed)
            model = make(width)
            inputs = to_device(batch[0], next(model.parameters()).device)
            before = _activations(model, inputs)
            optimizer = torch.optim.AdamW(groups(model, lr), betas=(0.9, 0.95))
            for step in train(model, [batch], steps=steps, optimizer=optimizer, clip=None):
                for name, now in _activations(model, inputs).items():
                    change = (now - before[name]).square().mean().item()
                    squares[name][step.step - 1, w] += change / len(seeds)
    return {name: np.sqrt(value) for name, value in squares.items()}


def width_slopes(widths: Sequence[int], changes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return for each part the slopes (S,) of log2 of the change over log2 of the width: 0 is flat.

    Raises ValueError for fewer than two widths, and a change that is 0 or not finite.

    >>> width_slopes([16, 32, 64], {"logits": np.array([[1.0, 2.0, 4.0]])})["logits"].round(6).tolist()
    [1.0]
    """
    x = np.log2(number_row(widths, "widths", 1))
    whole(len(set(x.tolist())), "the number of different widths", least=2)
    for name, rows in changes.items():
        if not (np.isfinite(rows).all() and np.min(rows) > 0):
            raise ValueError(f"{name}: a change is 0 or not finite, and has no slope: leave this part out")
    return {name: np.polyfit(x, np.log2(rows).T, 1)[0] for name, rows in changes.items()}
