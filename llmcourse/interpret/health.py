"""Examine a trained model from inside: units that never speak, heads that do not look, states that point one way, sinks.

A finding is a reason to look, no proof of harm: whether the loss suffers is a second question, which `loss_without` asks
of positions and `ablation` of heads.

Dimensions: B rows, T time, N = B·T tokens, C width (d_model), F hidden width of the MLP, L layers, H heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcourse.attention import causal_mask
from llmcourse.generate import prompt_batch
from llmcourse.interpret.hooks import plain_layer, record
from llmcourse.interpret.lens import layer_names
from llmcourse.model import GPT
from llmcourse.runtime import evaluating

SILENT = 0.01  # of the median of its layer; the least of an untrained model is near a half
FIXED = 0.02  # mean share of its attention that a head moves when the text is another
ONE_WAY = 0.9  # mean cosine; GPT-2's last layer passes it (Ethayarajh 2019, fig. 1)
SINK = 0.3  # as in Gu et al. 2024, arXiv:2410.10781, sec. 3


@dataclass(frozen=True)
class Symptom:
    """What is unusual (`kind`), where, the number that says so, and the limit that it passes."""

    kind: str
    place: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{self.kind:14} {self.place:22} {self.value:.3g} (limit {self.limit:g})"


@dataclass(frozen=True)
class Examination:
    """The measures of `examine`, and as `symptoms` what passes a limit."""

    unit_writes: Tensor  # (L, F), the most that a unit adds to the stream, of the median of its layer
    head_writes: Tensor  # (L, H), the same of heads
    head_moves: Tensor  # (L, H), share of a head's attention that differs between two texts
    head_spread: (
        Tensor  # (L, H), mean entropy of its attention, of the largest possible; 1 looks everywhere alike
    )
    first_mass: Tensor  # (L, H), mean attention of later positions to the first
    cosine: Tensor  # (L + 1,), mean cosine between states of two tokens
    centred_cosine: Tensor  # (L + 1,), the same with the mean state removed

    @property
    def symptoms(self) -> list[Symptom]:
        """What passes a limit, layer by layer."""
        tables = [
            ("dead unit", self.unit_writes < SILENT, self.unit_writes, SILENT, "layer {}, unit {}"),
            ("silent head", self.head_writes < SILENT, self.head_writes, SILENT, "layer {}, head {}"),
            ("fixed head", self.head_moves < FIXED, self.head_moves, FIXED, "layer {}, head {}"),
            ("attention sink", self.first_mass > SINK, self.first_mass, SINK, "layer {}, head {}"),
            ("one direction", self.cosine > ONE_WAY, self.cosine, ONE_WAY, "stream after {} layers"),
        ]
        return [
            Symptom(kind, place.format(*at), values[tuple(at)].item(), limit)
            for kind, passed, values, limit, place in tables
            for at in passed.nonzero().tolist()
        ]

    def table(self) -> str:
        """Return a line for each layer, with the least, largest or mean number of its parts."""
        lines = ["layer  least unit  least head  moves  spread  to first  cosine  centred"]
        for i in range(len(self.unit_writes)):
            lines.append(
                f"{i:5}  {self.unit_writes[i].min():10.3f}  {self.head_writes[i].min():10.3f}"
                f"  {self.head_moves[i].min():5.2f}  {self.head_spread[i].mean():6.2f}"
                f"  {self.first_mass[i].max():8.2f}  {self.cosine[i + 1]:6.2f}  {self.centred_cosine[i + 1]:7.2f}"
            )
        return "\n".join(lines)


@torch.no_grad()
def examine(model: GPT, token_ids) -> Examination:
    """Return what can be seen inside the model while it reads token_ids (B, T), rows of real text, at least 2.

    All rows are read at once: a few thousand tokens tell. A unit that is used for rare things alone is found dead
    on a text that has none of them. Raises ValueError for fewer than 2 rows, rows of fewer than 4 tokens,
    and as `record` does.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1))
    >>> with torch.no_grad():
    ...     _ = model.blocks[0].mlp.down.weight[:, 5].zero_()
    >>> print(examine(model, torch.arange(80).reshape(4, 20) % 7).symptoms[0])
    dead unit      layer 0, unit 5        0 (limit 0.01)
    """
    rows = prompt_batch(token_ids, model.config.vocab_size)
    if rows.shape[0] < 2 or rows.shape[1] < 4:
        raise ValueError(f"token_ids are {tuple(rows.shape)}: give at least 2 rows of at least 4 tokens")
    layers = range(len(model.blocks))
    parts = ("mlp.hidden", "attention.heads", "attention.weights")
    at = record(model, rows, [f"blocks.{i}.{part}" for i in layers for part in parts])
    units, heads, weights = ([at[f"blocks.{i}.{part}"] for i in layers] for part in parts)
    streams = [x.flatten(0, 1) for x in record(model, rows, layer_names(model)).values()]
    return Examination(
        torch.stack([_unit_writes(x, block) for x, block in zip(units, model.blocks, strict=True)]),
        torch.stack([_head_writes(x, block) for x, block in zip(heads, model.blocks, strict=True)]),
        torch.stack([moved_share(x) for x in weights]),
        torch.stack([spread(x) for x in weights]),
        torch.stack([received(x)[:, 0] for x in weights]),
        torch.stack([mean_cosine(x) for x in streams]),
        torch.stack([mean_cosine(x - x.mean(dim=0)) for x in streams]),
    )


def _unit_writes(hidden: Tensor, block) -> Tensor:
    """Return (F,): the largest value of each unit (B, T, F) times the length of its column in `down`."""
    most = hidden.abs().amax(dim=(0, 1)) * plain_layer(block.mlp.down, hidden)[0].norm(dim=0)
    return most / most.median().clamp(min=torch.finfo(most.dtype).tiny)


def _head_writes(heads: Tensor, block) -> Tensor:
    """Return (H,): the longest vector that each head (B, T, H, D) adds to the stream."""
    weight = plain_layer(block.attention.out, heads)[0].unflatten(-1, heads.shape[-2:])  # (C, H, D)
    most = torch.einsum("bthd,chd->bthc", heads, weight).norm(dim=-1).amax(dim=(0, 1))
    return most / most.median().clamp(min=torch.finfo(most.dtype).tiny)


def moved_share(weights: Tensor) -> Tensor:
    """Return (H,): how much of its attention a head moves from one row to the next, over the same positions.

    It is the total variation between weights (B, H, T, T) of neighbouring rows, from 0 to 1, over the second half of the queries.

    >>> moved_share(torch.eye(4).expand(2, 1, 4, 4))  # itself, whatever is written
    tensor([0.])
    """
    later = weights[:, :, weights.shape[2] // 2 :]
    return (later - later.roll(1, dims=0)).abs().sum(dim=-1).mean(dim=(0, 2)) / 2


def spread(weights: Tensor) -> Tensor:
    """Return (H,): the mean entropy of attention (B, H, T, T) over that of an even look at all that is visible.

    >>> spread(torch.ones(4, 4).tril().div(torch.arange(1, 5)[:, None]).expand(1, 1, 4, 4))
    tensor([1.])
    """
    entropy = -torch.xlogy(weights, weights).sum(dim=-1)  # (B, H, T)
    most = torch.arange(1, weights.shape[2] + 1, device=weights.device).log()
    return (entropy[..., 1:] / most[1:]).mean(dim=(0, 2))


def received(weights: Tensor) -> Tensor:
    """Return (H, T): the mean attention that each position receives from the second half of the queries.

    A position that few of them can see gets little for that. Weights are (B, H, T, T).

    >>> received(torch.ones(4, 4).tril().div(torch.arange(1, 5)[:, None]).expand(1, 1, 4, 4))[0, 0]
    tensor(0.2917)
    """
    return weights[:, :, weights.shape[2] // 2 :].mean(dim=(0, 2))


def mean_cosine(states: Tensor) -> Tensor:
    """Return the mean cosine between two different rows of states (N, C): near 1, all point the same way.

    With u the rows at length 1 it is (‖Σu‖² - Σ‖u‖²) / (N² - N), so no pairs need be drawn.

    >>> mean_cosine(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    tensor(0.3333)

    Source: Ethayarajh 2019, arXiv:1909.00512, sec. 3.2; the mean removed: Mu & Viswanath 2018, arXiv:1702.01417.
    """
    u = F.normalize(states.double(), dim=-1)
    n = len(u)
    return ((u.sum(dim=0).square().sum() - u.square().sum()) / (n * n - n)).to(states.dtype)


@torch.no_grad()
def loss_without(model: GPT, token_ids, positions: Iterable[int] = ()) -> float:
    """Return the loss, in nats per token, when nobody may look at `positions` but they themselves.

    Their share of attention goes to the others, as the softmax is taken without them. Counted are predictions
    made behind the second half of the rows (B, T), so that the same ones are compared, whatever is hidden.
    Raises ValueError for a position that is not in the first half, and rows of fewer than 3 tokens.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> loss_without(model, [[1, 2, 3, 4]]) != loss_without(model, [[1, 2, 3, 4]], [0])
    True

    Source: Xiao et al. 2023, arXiv:2309.17453, sec. 3.1 (attention sinks: the loss without the first tokens).
    """
    rows = prompt_batch(token_ids, model.config.vocab_size).to(model.token_embedding.weight.device)
    T, hidden = rows.shape[1], torch.zeros(rows.shape[1], dtype=torch.bool, device=rows.device)
    if T < 3:
        raise ValueError(f"rows of {T} tokens: nothing behind their first half is predicted, give at least 3")
    for position in positions:
        if not (position == int(position) and 0 <= position < T // 2):
            raise ValueError(
                f"position {position} is not in the first half of {T} tokens: the rest is predicted"
            )
        hidden[position] = True
    mask = causal_mask(T, device=rows.device) & (~hidden | torch.eye(T, dtype=torch.bool, device=rows.device))
    with evaluating(model):
        logits = model(rows, mask)[:, T // 2 : -1]
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, T // 2 + 1 :].flatten()).item()
