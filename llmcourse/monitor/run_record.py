"""Record what a good trainer would log about a run: its curves, and a dozen cheap probes.

`record_run` trains and looks; `llmcourse.monitor.diagnose` reads the record.

Dimensions: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import mean, median

import torch
from torch import Tensor, nn

from llmcourse.data.batches import Batch
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.generate import generate
from llmcourse.losses import Loss, mean_loss, next_token_loss
from llmcourse.runtime import evaluating
from llmcourse.training import Step, train


@dataclass(frozen=True)
class Run:
    """The record of one training run. Losses are in nats per token, norms Euclidean."""

    steps: tuple[Step, ...]
    stopped: str | None  # the error that ended the run early
    vocab_size: int
    # The data.
    entropy: float  # of the tokens seen in training, by their frequency alone
    cross_entropy: float  # of the validation tokens under the same frequencies
    follow_on: float  # share of rows that begin with the token at which the row before ends
    shuffled_share: float  # that share in shuffled text
    # The model.
    untrained_loss: float
    future_leak: tuple[
        float, float
    ]  # largest change of a logit when the next token, or one further on, changes
    row_sums: float  # how far a row of attention is from the sum 1, at most
    copied: float  # share of positions whose likeliest next token is the one just read
    # Gradients and updates.
    recomputed_grad_norms: dict[int, float]  # step: norm of the gradient computed anew for its batch
    zeros: float  # share of zeros in that gradient, within the blocks
    updates: dict[int, float]  # step: |change| / |weights| of all matrices
    parameter_movement: dict[str, float]  # parameter: the same over the whole run
    norm_gain: float  # mean gain of the norms at the end
    growth: float  # |matrices| at the end / at the start
    # The end.
    repeated_validation_loss: tuple[float, float]  # measured two times
    sample: str  # a text that the model wrote
    sample_bigram_loss: float  # of that text, by a bigram model of tokens
    text_bigram_loss: float  # of the validation text, by the same counts

    def validation(self) -> tuple[list[int], list[float]]:
        """Return the steps at which the validation loss was measured, and the losses."""
        seen = [s for s in self.steps if s.validation_loss is not None]
        return [s.step for s in seen], [s.validation_loss for s in seen]

    def last_losses(self, n: int = 20) -> float:
        """Return the mean training loss of the last `n` steps; of the first batch if there is none."""
        return mean(s.loss for s in self.steps[-n:]) if self.steps else self.untrained_loss


class _Watched:
    """Batches that note, when `train` asks for one, the state of the model just before its step."""

    def __init__(self, batches: Iterable[Batch], model: nn.Module, steps: int, loss: Loss):
        self.source, self.model, self.loss, self.step = iter(batches), model, loss, 0
        self.probed = set(range(max(1, steps // 5), steps, max(1, steps // 5)))
        self.rows: list[Tensor] = []  # (B, T + 1) each: what the model has read
        self.recomputed_grad_norms, self.zeros, self.updates, self.before = {}, [], {}, None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        inputs, targets = next(self.source)
        self.step += 1
        self.rows.append(torch.cat([inputs, targets[:, -1:]], dim=1).cpu())
        now = matrices(self.model)
        if self.before is not None:  # the step between this call and the last one is over
            self.updates[self.step - 1] = distance(now, self.before) / length(self.before)
            self.before = None
        if self.step in self.probed:
            self.before = [p.detach().clone() for p in now]
            self.look_at_gradients((inputs, targets))
        return inputs, targets

    def look_at_gradients(self, batch: Batch) -> None:
        """Compute the gradient of this batch alone, which leaves `.grad` and dropout untouched."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        device = parameters[0].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            mean = mean_loss(self.model, batch, self.loss)
            gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
        found = [g for g in gradients if g is not None]
        self.recomputed_grad_norms[self.step] = length(found)
        inner = {id(p) for p in self.model.blocks.parameters() if p.dim() >= 2}
        parts = [g for p, g in zip(parameters, gradients, strict=True) if g is not None and id(p) in inner]
        self.zeros.append(sum((g == 0).sum().item() for g in parts) / sum(g.numel() for g in parts))


def record_run(
    model: nn.Module,
    batches: Iterable[Batch],
    train_ids: Tensor,
    validation_ids: Tensor,
    decode: Callable[[Iterable[int]], str],
    *,
    steps: int,
    loss: Loss = next_token_loss,
    evaluate: Callable[[nn.Module, Tensor], float] = evaluate_loss,
    eval_every: int = 20,
    **options,
) -> Run:
    """Train `model`, a GPT, with `train(..., **options)` and return its record; its probes cost time too.

    `loss` is that of the run, and of the gradients that are computed anew. `evaluate(model,
    validation_ids)` is the project's own: if it is wrong, the record shows it. A run that stops with
    FloatingPointError is recorded up to there, the message in `stopped`. Raises ValueError for
    `accumulate` above 1 and for less validation text than one context.
    """
    V, T = model.config.vocab_size, model.config.context_length
    if options.get("accumulate", 1) != 1:
        raise ValueError("the gradient probes need one batch a step: record with accumulate=1")
    device = next(model.parameters()).device
    n_rows = min(8, len(validation_ids) // T)
    if n_rows == 0:
        raise ValueError(f"{len(validation_ids)} validation tokens: give at least one context of {T}")
    rows = validation_ids[: n_rows * T].view(n_rows, T).to(device)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    start_length = length(matrices(model))
    untrained_loss = evaluate(model, validation_ids)
    watched, done, stopped = _Watched(batches, model, steps, loss), [], None
    watch = dict(evaluate=lambda m: evaluate(m, validation_ids), eval_every=eval_every)
    try:
        for step in train(model, watched, steps=steps, loss=loss, **watch, **options):
            done.append(step)
    except FloatingPointError as error:
        stopped = str(error)
    read = torch.cat(watched.rows)
    share = counts(read, V) / counts(read, V).sum()
    pairs = pair_losses(train_ids, V)
    sample, written = "", math.nan
    with evaluating(model):
        works = model(rows[:1]).isfinite().all()
    if works:  # a broken model writes nothing
        ids = generate(model, rows[0, :8], 120, seed=0, use_cache=False)[0].cpu()
        sample, written = decode(ids.tolist()), pairs[ids[:-1], ids[1:]].mean().item()
    return Run(
        steps=tuple(done),
        stopped=stopped,
        vocab_size=V,
        entropy=-(share * share.log()).sum().item(),
        cross_entropy=-share.log()[validation_ids].mean().item(),
        follow_on=(read[1:, 0] == read[:-1, -1]).double().mean().item(),
        shuffled_share=share.square().sum().item(),
        untrained_loss=untrained_loss,
        future_leak=future_change(model, rows),
        row_sums=max((m.sum(-1) - 1).abs().max().item() for m in model.attention_maps(rows)),
        copied=copied_share(model, rows),
        recomputed_grad_norms=watched.recomputed_grad_norms,
        zeros=median(watched.zeros or [0.0]),
        updates=watched.updates,
        parameter_movement={
            name: distance([p], [start[name]]) / (length([start[name]]) or 1.0)
            for name, p in model.named_parameters()
        },
        norm_gain=mean(
            [p.abs().mean().item() for name, p in model.named_parameters() if "norm.w" in name] or [1.0]
        ),
        growth=length(matrices(model)) / start_length,
        repeated_validation_loss=(evaluate(model, validation_ids), evaluate(model, validation_ids)),
        sample=sample,
        sample_bigram_loss=written,
        text_bigram_loss=pairs[validation_ids[:-1], validation_ids[1:]].mean().item(),
    )


def matrices(model: nn.Module) -> list[Tensor]:
    """Return the parameters with two or more dimensions."""
    return [p for p in model.parameters() if p.dim() >= 2]


def length(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all entries together.

    >>> length([torch.tensor([3.0]), torch.tensor([[4.0]])])
    5.0
    """
    return math.sqrt(sum(t.detach().cpu().double().square().sum().item() for t in tensors))


def distance(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """Return the norm of the difference between two lists of tensors."""
    return length(a.detach() - b.detach() for a, b in zip(tensors, others, strict=True))


def counts(ids: Tensor, vocab_size: int) -> Tensor:
    """Return (V,): how often each token occurs, plus one half, so that no logarithm is infinite."""
    return torch.bincount(ids.flatten(), minlength=vocab_size).cpu().double() + 0.5


def pair_losses(ids: Tensor, vocab_size: int) -> Tensor:
    """Return (V, V): -log p(next token | token) by counting pairs, each counted half a time more."""
    pairs = counts(ids[:-1] * vocab_size + ids[1:], vocab_size**2).view(vocab_size, vocab_size)
    return -(pairs / pairs.sum(-1, keepdim=True)).log()


@torch.no_grad()
def future_change(model: nn.Module, rows: Tensor) -> tuple[float, float]:
    """Return how much a logit changes, at most, when the next token, or one further on, is changed.

    Both must be 0 for rows (B, T) of token ids and a causal model: no logit may know the future.
    Dropout, should it be on, is drawn alike for both computations.
    """
    changed, place = rows.clone(), rows.shape[1] // 2
    changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
    outputs = []
    for ids in (rows, changed):
        with evaluating(model), torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
            torch.manual_seed(0)
            outputs.append(model(ids))  # (B, T, V)
    change = (outputs[1] - outputs[0]).abs().amax(dim=(0, 2))  # (T,)
    return change[place - 1].item(), change[: place - 1].max().item()


@torch.no_grad()
def copied_share(model: nn.Module, rows: Tensor) -> float:
    """Return the share of positions of `rows` whose likeliest next token is the token just read."""
    with evaluating(model):
        return (model(rows).argmax(-1) == rows).cpu().double().mean().item()
