"""The training loop: a generator, so that printing, plotting and stopping stay in your sight."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.auto import tqdm

from llmcourse.checkpoint import random_state, save_checkpoint, set_random_state
from llmcourse.data.batches import IGNORE
from llmcourse.losses import cross_entropy
from llmcourse.optim import parameter_groups
from llmcourse.resume import begin_run, describe
from llmcourse.runtime import someone_is_watching
from llmcourse.schedules import Schedule, constant
from llmcourse.support.inputs import number, whole

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Step:
    """One optimizer step. `loss` is the cross-entropy in nats per token, before the update, never
    smoothed; `tokens` (targets that count) and `seconds` (of training, without evaluation) are
    totals so far."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    seconds: float
    validation_loss: float | None = None


def endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield from `batches` again and again: an epoch after an epoch."""
    while True:
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if count == 0:
            raise ValueError("there is no batch left: give a non-empty, repeatable or endless source")


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    lr: float = 1e-3,
    schedule: Schedule = constant,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    optimizer: torch.optim.Optimizer | None = None,
    clip: float | None = 1.0,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
    evaluate: Callable[[nn.Module], float] | None = None,
    eval_every: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Train `model` in place and yield a `Step` after each update.

    `batches` gives (inputs, targets), each (B, T). Without an `optimizer` it is AdamW on
    `parameter_groups`: torch's fused one, whose steps are those of `optim.AdamW` in one pass over
    memory; one of your own brings its own rate, decay and betas. `accumulate` batches make one update,
    as if they were one large batch. `label_smoothing=e` trains towards 1 - e on the target and e
    spread over all tokens, so that no logit need grow without end (Szegedy et al. 2015,
    arXiv:1512.00567, sec. 7). `dtype` is the precision of matrix products (float16 adds loss scaling).
    `evaluate(model)` runs every `eval_every` steps and after the last. `checkpoint` is written every
    `checkpoint_every` steps, after the last, and when you stop it or an error does; `resume=True` goes
    on from it, if it is there: exactly, where `batches` has a `state_dict`, as TokenBatches has;
    another source starts again from its beginning. Arguments that you change, such as `lr`, count from
    then on.

    Raises ValueError for bad arguments and another run's checkpoint, OSError before the first step
    if it cannot be written, FloatingPointError when the loss or a gradient is not finite.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> ids = torch.arange(8).repeat(4, 1)
    >>> model = GPT(ModelConfig(vocab_size=8, d_model=16, n_layers=1))
    >>> [step.step for step in train(model, [(ids[:, :-1], ids[:, 1:])], steps=2)]
    [1, 2]
    """
    check_counts(steps=steps, accumulate=accumulate, eval_every=eval_every, checkpoint_every=checkpoint_every)
    check_arguments(model, optimizer, lr, weight_decay, betas, clip, label_smoothing, dtype)
    if checkpoint is None and (resume or checkpoint_every):
        raise ValueError("resume and checkpoint_every need a file: give checkpoint=PATH")
    device = next(model.parameters()).device
    if optimizer is None:
        groups = parameter_groups(model, weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    set_initial_rates(optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    parts, given = dict(optimizer=optimizer, scaler=scaler), describe(model, optimizer)
    if hasattr(batches, "state_dict"):
        parts["batches"] = batches
    done, tokens, seconds = begin_run(checkpoint, resume, model, steps, given, **parts)

    def save() -> None:
        if checkpoint is not None:
            numbers = dict(given=given, step=done, tokens=tokens, seconds=seconds)
            save_checkpoint(checkpoint, model, **parts, **numbers)

    source = endless(batches)
    bar = tqdm(total=steps, initial=done, unit="step", leave=False, disable=not someone_is_watching())
    model.train()
    model.zero_grad(set_to_none=True)  # an earlier error may have left gradients
    saved, before, updating = done, None, False
    try:
        while done < steps:
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = group["last_lr"] = group["initial_lr"] * schedule(done)
            before = batches.state_dict() if "batches" in parts else None, random_state()
            micro_batches = [next(source) for _ in range(int(accumulate))]
            loss, counted = accumulate_gradients(model, micro_batches, device, dtype, scaler, label_smoothing)
            scaler.unscale_(optimizer)
            grad_norm = clip_gradients(model, clip)
            scaled = dtype == torch.float16  # a scaler passes over gradients that overflow
            if not (math.isfinite(loss) and (scaled or math.isfinite(grad_norm))):
                raise FloatingPointError(
                    diagnosis(loss, grad_norm, done + 1, optimizer.param_groups[0]["lr"])
                )
            updating = True
            scaler.step(optimizer)
            scaler.update()
            model.zero_grad(set_to_none=True)
            done, tokens = done + 1, tokens + counted
            before, updating = None, False
            seconds += time.perf_counter() - began
            validation_loss = None
            if evaluate and (done == steps or (eval_every and done % eval_every == 0)):
                validation_loss = evaluate(model)
                model.train()
            if done == steps or (checkpoint_every and done % checkpoint_every == 0):
                save()
                saved = done
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            lr_now = optimizer.param_groups[0]["lr"]
            yield Step(done, loss, lr_now, grad_norm, tokens, seconds, validation_loss)
    except BaseException as error:  # stopped early: go back to the last whole step
        if saved != done and not updating and not isinstance(error, FloatingPointError):
            if before is not None:
                place, random = before
                set_random_state(random)
                if place is not None:
                    batches.load_state_dict(place)
            save()
        raise
    finally:
        bar.close()


def check_counts(**counts: int | None) -> None:
    """Raise ValueError for a number of steps or batches that is not whole and at least 1, or None."""
    for name, count in counts.items():
        if count is not None:
            whole(count, name)


def check_arguments(model, optimizer, lr, weight_decay, betas, clip, label_smoothing, dtype) -> None:
    """Raise ValueError for an argument of `train` with which a run would fail late, or learn nothing."""
    number(lr, "lr", low=0.0, wanted="a number that is not negative, such as 1e-3")
    number(weight_decay, "weight_decay", low=0.0, wanted="a number that is not negative, such as 0.1")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas}: must be two numbers in [0, 1), for example (0.9, 0.95)")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip={clip}: must be above 0; 1.0 is usual, None does not clip")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing={label_smoothing}: must be in [0, 1); 0 is none, 0.1 is usual")
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


def clip_gradients(model: nn.Module, clip: float | None) -> float:
    """Return the norm of all gradients together; if it is above `clip`, shorten them to it."""
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if clip is not None and norm > clip:
        clip_grads_with_norm_(model.parameters(), clip, norm)
    return norm.item()


def accumulate_gradients(
    model, micro_batches, device, dtype, scaler, label_smoothing=0.0
) -> tuple[float, int]:
    """Add up gradients of the mean loss over all counted targets.

    Return (cross-entropy, number of counted targets): the cross-entropy without smoothing, which
    can be compared between runs and with an evaluation.
    """
    counted = sum(int((targets != IGNORE).sum()) for _, targets in micro_batches)
    if counted == 0:
        raise ValueError(f"no target counts: all are {IGNORE}; check the loss mask of the batch")
    total = torch.zeros((), device=device)
    for inputs, targets in micro_batches:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(inputs.to(device)).flatten(0, 1)  # (B·T, V)
        logits, targets = logits.float(), targets.to(device).flatten()
        loss = plain = cross_entropy(logits, targets, IGNORE)
        if label_smoothing:
            options = dict(ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing)
            loss = F.cross_entropy(logits, targets, **options)
        scaler.scale(loss / counted).backward()
        total += plain.detach()
    return total.item() / counted, counted


def diagnosis(loss: float, grad_norm: float, step: int, lr: float) -> str:
    """Say what a loss or gradient that is not finite usually means, and what to do next."""
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {grad_norm}"
    return (
        f"{what} at step {step} with learning rate {lr:.2g}. Usual causes, in this "
        "order: a learning rate that is too high (divide it by 10), no warmup, float16 without "
        "loss scaling, a row of attention that may look nowhere. The model before this step is "
        "in the last checkpoint"
    )
