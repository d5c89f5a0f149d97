"""Activation patching: put what one text made into the run of another, and see whose answer comes out.

Two runs differ in what is asked for, and in little else: a clean and a corrupted text. The patched run reads `base`;
at some places it goes on with what the model had there in `source`. With the corrupted text as base an
effect says what suffices to bring the clean answer back (denoising); with the clean one, what is needed
for it (noising). An effect is (metric - base's) / (source's - base's): 0 as if nothing were patched, 1 as if everything were.

Dimensions: B rows, T time, V vocabulary, L layers, H heads, G heads of keys and values, D head width.

Source: Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262, sec. 2; the two directions in Heimersheim
& Nanda 2024, arXiv:2404.15255.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from llmcourse.generate import prompt_batch
from llmcourse.interpret.ablation import by_layer, replace_heads
from llmcourse.interpret.hooks import hooked, one_id_a_row, record
from llmcourse.model import GPT
from llmcourse.runtime import evaluating

Metric = Callable[[Tensor], Tensor | float]  # of logits (B, T, V), one number
Receiver = tuple[int, int, str]  # layer, head, and "q", "k" or "v"


def logit_difference(right, wrong, position: int = -1) -> Metric:
    """Return a metric: the mean over rows of logit(right) - logit(wrong) at `position`; each is an id, or (B,).

    The metric raises ValueError for an id that the logits do not have, and a number of ids that is not that of the rows.

    >>> logit_difference(right=1, wrong=0)(torch.tensor([[[0.0, 3.0]], [[1.0, 2.0]]]))
    tensor(2.)
    """

    def metric(logits: Tensor) -> Tensor:
        logits = logits[:, position]  # (B, V)
        ids = [
            one_id_a_row(some, name, *logits.shape)[:, None].to(logits.device)
            for name, some in (("right", right), ("wrong", wrong))
        ]
        return (logits.gather(1, ids[0]) - logits.gather(1, ids[1])).mean()

    return metric


def _pair(model: GPT, source, base) -> tuple[Tensor, Tensor]:
    source, base = (prompt_batch(ids, model.config.vocab_size) for ids in (source, base))
    if source.shape != base.shape:
        raise ValueError(
            f"source is {tuple(source.shape)} and base {tuple(base.shape)}: each place of one is put at the same place "
            "of the other, so give texts of equal length, row by row"
        )
    device = model.token_embedding.weight.device
    return source.to(device), base.to(device)


@torch.no_grad()
def _logits(model: GPT, ids: Tensor, edits=()) -> Tensor:
    with evaluating(model), hooked(model, dict(edits)):
        return model(ids)


def _scale(model: GPT, source: Tensor, base: Tensor, metric: Metric) -> Callable[[Tensor], float]:
    """Return the function that makes an effect of logits."""
    low, high = (float(metric(_logits(model, ids))) for ids in (base, source))
    if not abs(high - low) > 0:  # NaN as well
        raise ValueError(
            f"the metric is {high} in source and {low} in base: effects are shares of a difference"
        )
    return lambda logits: (float(metric(logits)) - low) / (high - low)


def patch_sites(
    model: GPT, source, base, metric: Metric, sites: Iterable[str], each_position: bool = False
) -> Tensor:
    """Return the effect of each site (S,), patched alone; with `each_position`, of each of its positions (S, T).

    `source` and `base` are token ids (B, T). Raises ValueError for texts of unequal length, for a metric that is
    the same in both, and as `record` does.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1))
    >>> patch_sites(model, [1, 2, 3], [1, 4, 3], logit_difference(5, 6), ["embedding"])
    tensor([1.])
    """
    source, base = _pair(model, source, base)
    effect, sites = _scale(model, source, base, metric), list(sites)
    there = record(model, source, sites)
    if not each_position:
        return torch.tensor(
            [effect(_logits(model, base, {site: lambda x, s=site: there[s]})) for site in sites]
        )

    def at(x: Tensor, site: str, position: int) -> Tensor:
        x = x.clone()
        x[:, position] = there[site][:, position]
        return x

    edits = lambda site, t: {site: partial(at, site=site, position=t)}  # noqa: E731
    return torch.tensor(
        [[effect(_logits(model, base, edits(site, t))) for t in range(base.shape[1])] for site in sites]
    )


def _head_sites(model: GPT) -> list[str]:
    return [f"blocks.{layer}.attention.heads" for layer in range(len(model.blocks))]


def patched_heads(model: GPT, source, base, heads: Iterable[tuple[int, int]]) -> Tensor:
    """Return the logits (B, T, V) for `base` when all of `heads`, pairs (layer, head), put out what they do for `source`."""
    source, base = _pair(model, source, base)
    there = record(model, source, _head_sites(model))
    edits = {}
    for layer, some in by_layer(heads).items():
        site = f"blocks.{layer}.attention.heads"
        edits[site] = replace_heads(some, there.get(site))
    return _logits(model, base, edits)


def patch_heads(model: GPT, source, base, metric: Metric) -> Tensor:
    """Return the effect of each head, (L, H): its output is patched at all positions, the others' is not.

    Raises ValueError as `patch_sites`.
    """
    source, base = _pair(model, source, base)
    effect, there = _scale(model, source, base, metric), record(model, source, _head_sites(model))
    edits = lambda site, head: {site: replace_heads([head], there[site])}  # noqa: E731
    heads = range(model.config.n_heads)
    return torch.tensor(
        [[effect(_logits(model, base, edits(site, head))) for head in heads] for site in there]
    )


@torch.no_grad()
def path_patch(
    model: GPT,
    source,
    base,
    senders: Iterable[tuple[int, int]],
    receivers: str | Iterable[Receiver] = "logits",
    through_mlps: bool = True,
) -> Tensor:
    """Return the logits (B, T, V) for `base` when `receivers` alone hear what `senders` put out for `source`.

    Senders are heads (layer, head); receivers (layer, head, "q"), "k" or "v", counted among the heads of keys and
    values for the last two, or "logits". A message passes along the residual stream and, with
    `through_mlps`, through the MLPs on the way, but through no other head: those are held at what they
    put out for `base`. Raises ValueError as `patch_sites`, and for a receiver that does not exist.

    Source: Wang et al. 2022, arXiv:2211.00593, app. B (through MLPs); Goldowsky-Dill et al. 2023, arXiv:2304.05969.
    """
    source, base = _pair(model, source, base)
    sites, mlps = _head_sites(model), [f"blocks.{layer}.mlp.out" for layer in range(len(model.blocks))]
    here, there, layers = record(model, base, sites + mlps), record(model, source, sites), by_layer(senders)
    if layers and f"blocks.{max(layers)}.attention.heads" not in there:
        raise ValueError(f"layer {max(layers)} does not exist: this model has layers 0 to {len(sites) - 1}")
    sent = {}
    for layer, site in enumerate(sites):  # what each head puts out while the message passes
        sent[site] = replace_heads(layers[layer], there[site])(here[site]) if layer in layers else here[site]
    if not through_mlps:
        sent |= {site: here[site] for site in mlps}
    messages = {site: lambda x, s=site: sent[s] for site in sent}
    if isinstance(receivers, str):
        if receivers != "logits":
            raise ValueError(f"receivers={receivers!r}: give 'logits', or heads such as (2, 1, 'q')")
        return _logits(model, base, messages)
    parts = _receiving(receivers)
    with hooked(model, messages):
        heard = record(model, base, parts)
    return _logits(model, base, {site: replace_heads(heads, heard[site]) for site, heads in parts.items()})


def _receiving(receivers: Iterable[Receiver]) -> dict[str, list[int]]:
    """Return the heads of each site that hears, such as {"blocks.1.attention.k": [0, 2]}."""
    found: dict[str, list[tuple[int, int]]] = {}
    for receiver in receivers:
        if len(receiver) != 3 or receiver[2] not in ("q", "k", "v"):
            raise ValueError(f"{receiver!r} hears nothing: give (layer, head, 'q'), 'k' or 'v'")
        found.setdefault(receiver[2], []).append(receiver[:2])
    return {
        f"blocks.{layer}.attention.{part}": heads
        for part, pairs in found.items()
        for layer, heads in by_layer(pairs).items()
    }


def path_effects(
    model: GPT, source, base, metric: Metric, receivers="logits", through_mlps: bool = True
) -> Tensor:
    """Return the effect of each head (L, H) as the only sender to `receivers`, as `path_patch` takes them.

    It is 0 for a head that does not come before the receivers. Raises ValueError as `path_patch`.
    """
    source, base = _pair(model, source, base)
    effect = _scale(model, source, base, metric)
    receivers = receivers if isinstance(receivers, str) else list(receivers)
    last = len(model.blocks) if isinstance(receivers, str) else max((r[0] for r in receivers), default=0)
    effects = torch.zeros(len(model.blocks), model.config.n_heads)
    for layer, head in ((layer, head) for layer in range(last) for head in range(model.config.n_heads)):
        effects[layer, head] = effect(
            path_patch(model, source, base, [(layer, head)], receivers, through_mlps)
        )
    return effects
