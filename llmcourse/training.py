"""The training loop: a generator, so that printing, plotting and stopping stay in your sight."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.auto import tqdm

from llmcourse.data.batches import to_device
from llmcourse.losses import Loss, checked, next_token_loss
from llmcourse.optim import parameter_groups
from llmcourse.resume import RunState
from llmcourse.runtime import someone_is_watching
from llmcourse.schedules import Schedule, constant
from llmcourse.support.inputs import number, whole


@dataclass(frozen=True)
class Step:
    """One optimizer step. `loss` is what the loss reports for each thing that it counts, before the
    update: for `next_token_loss` the cross-entropy in nats per token. `tokens` (what the loss counts)
    and `seconds` (of training, without evaluation) are totals so far."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    seconds: float
    validation_loss: float | None = None


def train(
    model: nn.Module,
    batches: Iterable,
    *,
    steps: int,
    loss: Loss = next_token_loss,
    lr: float = 1e-3,
    schedule: Schedule = constant,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    optimizer: torch.optim.Optimizer | None = None,
    clip: float | None = 1.0,
    accumulate: int = 1,
    dtype: torch.dtype = torch.float32,
    evaluate: Callable[[nn.Module], float] | None = None,
    eval_every: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Train `model` in place; return a generator that yields a `Step` after each update.

    `loss(model, batch)` says what is minimized (see `losses.Loss`); the default takes batches of
    (inputs, targets), each (B, T). Without an `optimizer` it is AdamW on `parameter_groups`: torch's
    fused one, whose steps are those of `optim.AdamW` in one pass over memory; one of your own brings
    its own rate, decay and betas. `accumulate` batches make one update, as if they were one large
    batch. `dtype` is the precision of matrix products (float16 adds loss scaling). `evaluate(model)`
    runs every `eval_every` steps and after the last. `checkpoint` is written every `checkpoint_every`
    steps, after the last, and when you stop it or an error does; `resume=True` goes on from it, if it
    is there: exactly, where `batches` has a `state_dict`, as TokenBatches has; another source starts
    again from its beginning. Arguments that you change, such as `lr`, count from then on.

    Raises ValueError for bad arguments, another run's checkpoint and a loss that breaks its contract,
    OSError if the checkpoint cannot be written, FloatingPointError when the loss or a gradient is
    not finite.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> ids = torch.arange(8).repeat(4, 1)
    >>> model = GPT(ModelConfig(vocab_size=8, d_model=16, n_layers=1))
    >>> [step.step for step in train(model, [(ids[:, :-1], ids[:, 1:])], steps=2)]
    [1, 2]
    """
    check_counts(steps=steps, accumulate=accumulate, eval_every=eval_every, checkpoint_every=checkpoint_every)
    check_arguments(model, optimizer, lr, weight_decay, betas, clip, dtype)
    if checkpoint is None and (resume or checkpoint_every):
        raise ValueError("resume and checkpoint_every need a file: give checkpoint=PATH")
    if optimizer is None:
        groups = parameter_groups(model, weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    set_initial_rates(optimizer)
    scaler = torch.amp.GradScaler(next(model.parameters()).device.type, enabled=dtype == torch.float16)
    state = RunState(checkpoint, model, optimizer, scaler, batches)
    state.begin(resume, steps)
    how = loss, schedule, int(accumulate), clip, dtype
    return loop(state, batches, steps, *how, evaluate, eval_every, checkpoint_every)


def loop(
    state, batches, steps, loss, schedule, accumulate, clip, dtype, evaluate, eval_every, checkpoint_every
) -> Iterator[Step]:
    """The loop of `train`: batches, gradients, update; then evaluation and checkpoint where they are due."""
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    source = endless(batches)
    model.train()
    model.zero_grad(set_to_none=True)  # an earlier error may have left gradients
    with state, progress_bar(state.step, steps) as bar:
        while state.step < steps:
            began = time.perf_counter()
            lr = set_rates(optimizer, schedule(state.step))
            state.step_begins()
            micro_batches = [next(source) for _ in range(accumulate)]
            mean_loss, count = accumulate_gradients(model, micro_batches, loss, dtype, scaler)
            scaler.unscale_(optimizer)
            grad_norm = clip_gradients(model, clip)
            check_finite(mean_loss, grad_norm, state.step + 1, lr, dtype)
            state.update_begins()
            scaler.step(optimizer)
            scaler.update()
            model.zero_grad(set_to_none=True)
            state.step_ends(count, time.perf_counter() - began)
            validation_loss = None
            if evaluate and is_due(state.step, eval_every, steps):
                validation_loss = evaluate(model)
                model.train()
            if is_due(state.step, checkpoint_every, steps):
                state.save()
            bar.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)
            bar.update()
            yield Step(state.step, mean_loss, lr, grad_norm, state.tokens, state.seconds, validation_loss)


def accumulate_gradients(model, micro_batches, loss, dtype, scaler) -> tuple[float, float]:
    """Add up in `.grad` the gradient of the sum of all losses over the sum of all counts, batch by batch.

    Return (what the loss reports for each thing that it counts, how many it counted).
    """
    device = next(model.parameters()).device
    reported, counted, guess = 0.0, 0, None
    for batch in micro_batches:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            total, count, tell = checked(loss(model, to_device(batch, device)))
        guess = guess or max(count, 1) * len(micro_batches)  # of all counts: right if they are equal
        scaler.scale(total / guess).backward()
        reported, counted = reported + tell.detach(), counted + count
    if counted == 0:
        raise ValueError(
            "no target counts: the loss returned the count 0 for all batches of this step; check the loss mask"
        )
    if counted != guess:
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(guess / counted)
    return reported.item() / counted, counted


def clip_gradients(model: nn.Module, clip: float | None) -> float:
    """Return the norm of all gradients together; if it is above `clip`, shorten them to it."""
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if clip is not None and norm > clip:
        clip_grads_with_norm_(model.parameters(), clip, norm)
    return norm.item()


def endless(batches: Iterable) -> Iterator[Any]:
    """Yield from `batches` again and again: an epoch after an epoch."""
    while True:
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if count == 0:
            raise ValueError("there is no batch left: give a non-empty, repeatable or endless source")


def is_due(step: int, every: int | None, steps: int) -> bool:
    """Return whether something is due that is done every so many steps, and after the last."""
    return step == steps or (every is not None and step % every == 0)


def set_rates(optimizer, factor: float) -> float:
    """Multiply the rate that each group began with; return that of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["last_lr"] = group["initial_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def progress_bar(done: int, steps: int) -> tqdm:
    """Return a bar of steps, for `with`; where nobody is watching, it shows nothing."""
    watched = someone_is_watching()
    return tqdm(total=steps, initial=done, unit="step", leave=False, disable=not watched)


def check_counts(**counts: int | None) -> None:
    """Raise ValueError for a number of steps or batches that is not whole and at least 1, or None."""
    for name, count in counts.items():
        if count is not None:
            whole(count, name)


def check_arguments(model, optimizer, lr, weight_decay, betas, clip, dtype) -> None:
    """Raise ValueError for an argument of `train` with which a run would fail late, or learn nothing."""
    number(lr, "lr", low=0.0, wanted="a number that is not negative, such as 1e-3")
    number(weight_decay, "weight_decay", low=0.0, wanted="a number that is not negative, such as 0.1")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas}: must be two numbers in [0, 1), for example (0.9, 0.95)")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip={clip}: must be above 0; 1.0 is usual, None does not clip")
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype={dtype}: must be torch.float32, torch.bfloat16 or torch.float16")
    parameters = list(model.parameters())
    trainable = {id(p) for p in parameters if p.requires_grad}
    if not trainable:
        raise ValueError(
            f"there is nothing to train: the model has {len(parameters)} parameters, none of which has "
            "requires_grad=True; model.requires_grad_(True) sets it"
        )
    if dtype == torch.float16 and any(p.requires_grad and p.dtype == dtype for p in parameters):
        raise ValueError("weights are in float16, too coarse for steps: call model.float(), and keep dtype=")
    theirs = (
        [p for group in optimizer.param_groups for p in group["params"]]
        if optimizer is not None
        else parameters
    )
    if trainable.isdisjoint(map(id, theirs)):
        raise ValueError("the optimizer has no trainable parameter of this model: give it model.parameters()")


def set_initial_rates(optimizer) -> None:
    """Keep in each group the rate that the schedule multiplies: torch's own schedulers call it so too."""
    for group in optimizer.param_groups:
        if group.get("last_lr", group["lr"]) != group["lr"]:  # changed by hand since an earlier run
            group["initial_lr"] = group["lr"]
        group.setdefault("initial_lr", group["lr"])


def check_finite(loss: float, grad_norm: float, step: int, lr: float, dtype: torch.dtype) -> None:
    """Raise FloatingPointError for what is not finite; with float16, the scaler passes over such gradients."""
    if not (math.isfinite(loss) and (dtype == torch.float16 or math.isfinite(grad_norm))):
        raise FloatingPointError(non_finite_message(loss, grad_norm, step, lr))


def non_finite_message(loss: float, grad_norm: float, step: int, lr: float) -> str:
    """Say what a loss or gradient that is not finite usually means, and what to do next."""
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {grad_norm}"
    return (
        f"{what} at step {step} with learning rate {lr:.2g}. Usual causes, in this "
        "order: a learning rate that is too high (divide it by 10), no warmup, float16 without "
        "loss scaling, a row of attention that may look nowhere. The model before this step is "
        "in the last checkpoint"
    )
