"""Find the heads that do the work, and check that they suffice.

A head matters if the answer changes when its output is exchanged. By what it is exchanged, and on which
texts, decides what can be found.

Dimensions: B texts, T time, V vocabulary, L layers, H heads, D head width.
"""

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor

from llmcourse.generate import prompt_batch
from llmcourse.interpret.ablation import by_layer, head_means, replace_heads
from llmcourse.interpret.hooks import hooked, record
from llmcourse.interpret.patching import Metric
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number

Place = tuple[int, int]  # (layer, head)
KINDS = ("corrupt", "restore", "mean", "zero")
THRESHOLD = 0.1  # a head counts that carries a tenth of the difference


class Exchange:
    """Runs a model on clean texts and their corrupted twins (B, T) with the outputs of some heads exchanged.

    `clean_score` and `corrupted_score` are the metric of both runs. `kind` says what is put where:
    "corrupt" runs the clean texts, and heads get their output of the corrupted run; "restore" runs the
    corrupted texts, and heads get that of the clean run; "mean" and "zero" run the clean texts, and heads
    get the mean over all texts at each position, or zeros. Raises ValueError for another kind, for texts
    that do not pair, and for a metric that cannot tell the two runs apart.
    """

    def __init__(self, model: GPT, clean, corrupted, metric: Metric, kind: str = "corrupt"):
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is unknown: choose one of {KINDS}")
        device = model.token_embedding.weight.device
        clean, corrupted = (prompt_batch(x, model.config.vocab_size).to(device) for x in (clean, corrupted))
        if clean.shape != corrupted.shape:
            raise ValueError(
                f"clean {tuple(clean.shape)} and corrupted {tuple(corrupted.shape)} texts: each clean text needs a "
                "corrupted one of the same length"
            )
        self.model, self.metric = model, metric
        self.clean_score, self.corrupted_score = self.run(clean), self.run(corrupted)
        self.difference = self.clean_score - self.corrupted_score
        if not abs(self.difference) > 1e-6:
            raise ValueError(
                f"the metric is {self.clean_score:.4g} on the clean texts and {self.corrupted_score:.4g} on the "
                "corrupted ones: there is no difference to find heads for; corrupt what decides the answer"
            )
        self.text = corrupted if kind == "restore" else clean
        self.start = self.corrupted_score if kind == "restore" else self.clean_score
        self.sign = 1.0 if kind == "restore" else -1.0
        self.values = self._values(clean, corrupted, kind)

    def _values(self, clean: Tensor, corrupted: Tensor, kind: str) -> Tensor:
        """Return what is put in place of each head, (L, B or 1, T, H, D)."""
        if kind == "mean":
            return head_means(self.model, torch.cat([clean, corrupted]), each_position=True)[:, None]
        sites = [f"blocks.{layer}.attention.heads" for layer in range(len(self.model.blocks))]
        source = clean if kind == "restore" else corrupted
        values = torch.stack(list(record(self.model, source, sites).values()))
        return torch.zeros_like(values) if kind == "zero" else values

    @torch.no_grad()
    def run(self, token_ids: Tensor, heads: Iterable[Place] = ()) -> float:
        """Return the metric on the texts, with `heads` exchanged."""
        edits = {
            f"blocks.{layer}.attention.heads": replace_heads(some, self.values[layer])
            for layer, some in by_layer(heads).items()
        }
        with hooked(self.model, edits), evaluating(self.model):
            return float(self.metric(self.model(token_ids)))

    def effect(self, *heads: Place) -> float:
        """Return the share of the difference between both runs that exchanging `heads` moves: 1 is all of it."""
        return self.sign * (self.run(self.text, heads) - self.start) / self.difference


def all_heads(model: GPT) -> list[Place]:
    """Return the places (layer, head) of a model, in order."""
    return [
        (layer, head) for layer, block in enumerate(model.blocks) for head in range(block.attention.n_heads)
    ]


def head_effects(model: GPT, clean, corrupted, metric: Metric, kind: str = "corrupt") -> Tensor:
    """Return (L, H): the share of the difference that each head moves when it alone is exchanged (`Exchange`).

    With "restore" it is what `patching.patch_heads` measures, from the clean text into the corrupted one.

    Source: Heimersheim & Nanda 2024, arXiv:2404.15255 ("corrupt" is noising, "restore" denoising).
    """
    exchange = Exchange(model, clean, corrupted, metric, kind)
    effects = [exchange.effect(head) for head in all_heads(model)]
    return torch.tensor(effects).view(len(model.blocks), -1)


def find_circuit(
    model: GPT,
    clean,
    corrupted,
    metric: Metric,
    threshold: float = THRESHOLD,
    kind: str = "corrupt",
    pairs: bool = False,
) -> set[Place]:
    """Return the heads that move at least `threshold` of the difference when one at a time is exchanged.

    Where heads are taken away ("mean", "zero"), copies of a head cover for each other: without one of them
    nothing changes. With `pairs`, two heads that move by `threshold` more together than the sum of both alone
    are in the circuit as well. Choose the threshold before you look. Raises ValueError as `Exchange`, and for a threshold outside 0 to 1.

    >>> from llmcourse.interpret.planted import plant
    >>> planted = plant("induction", seed=1)
    >>> texts = planted.texts()
    >>> find_circuit(planted.model, texts.clean, texts.corrupted, texts.metric) == planted.heads
    True

    Source: activation patching, Vig et al. 2020, arXiv:2004.12265; Wang et al. 2022, arXiv:2211.00593.
    """
    threshold = number(threshold, "threshold", 0.0, 1.0, "a share from 0 to 1, such as 0.1")
    exchange = Exchange(model, clean, corrupted, metric, kind)
    alone = {head: exchange.effect(head) for head in all_heads(model)}
    found = {head for head, effect in alone.items() if abs(effect) >= threshold}
    for one, other in combinations(alone, 2) if pairs else ():
        more = exchange.effect(one, other) - alone[one] - alone[other]
        if not {one, other} & found and abs(more) >= threshold:
            found |= {one, other}
    return found


def prune_circuit(
    model: GPT, clean, corrupted, metric: Metric, threshold: float = THRESHOLD, kind: str = "corrupt"
) -> set[Place]:
    """Return the heads that are left when heads are taken away one after the other, from the last layer on.

    A head stays away if the metric moves by less than `threshold` of the difference from where it was before; all
    that are away are exchanged together. Of two copies one is left. Raises ValueError as `find_circuit`.

    Source: Conmy et al. 2023, arXiv:2304.14997, algorithm 1, with heads in the place of edges.
    """
    threshold = number(threshold, "threshold", 0.0, 1.0, "a share from 0 to 1, such as 0.1")
    exchange = Exchange(model, clean, corrupted, metric, kind)
    away, moved = [], 0.0
    for head in reversed(all_heads(model)):
        now = exchange.effect(*away, head)
        if abs(now - moved) < threshold:
            away, moved = [*away, head], now
    return set(all_heads(model)) - set(away)


def faithfulness(
    model: GPT, clean, corrupted, metric: Metric, heads: Iterable[Place], kind: str = "mean"
) -> float:
    """Return the share of the model's metric that is left when all heads but `heads` are exchanged.

    1 is that of the whole model, 0 that with all heads exchanged, which is what the rest can do. Above 1, what was
    taken away was in the way. Raises ValueError as `Exchange`, also where all heads together move nothing.

    Source: Hanna et al. 2024, arXiv:2403.17806, sec. 3 (faithfulness, normalized).
    """
    if kind == "restore":
        raise ValueError(
            "kind='restore' puts clean outputs in: choose 'mean', 'corrupt' or 'zero' to take away"
        )
    exchange, every, heads = (
        Exchange(model, clean, corrupted, metric, kind),
        set(all_heads(model)),
        set(heads),
    )
    if unknown := heads - every:
        raise ValueError(f"head {min(unknown)} does not exist: heads are (0, 0) to {max(every)}")
    nothing, left = exchange.effect(*every), exchange.effect(*(every - heads))
    if not abs(nothing) > 1e-6:
        raise ValueError("the metric stays as it is without any head: nothing is there to be faithful to")
    return 1 - left / nothing


def compare_circuits(found: Iterable[Place], truth: Iterable[Place]) -> dict[str, int]:
    """Return how many heads are "right", how many of the truth are "missed", how many are "false" alarms.

    >>> compare_circuits({(0, 1), (1, 0)}, {(0, 1), (2, 2)})
    {'right': 1, 'missed': 1, 'false': 1}
    """
    found, truth = set(found), set(truth)
    return {"right": len(found & truth), "missed": len(truth - found), "false": len(found - truth)}
