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

from llmcourse.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state
from llmcourse.data.batches import IGNORE
from llmcourse.losses import cross_entropy
from llmcourse.optim import parameter_groups
from llmcourse.runtime import someone_is_watching
from llmcourse.schedules import Schedule, constant

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
    memory. `accumulate` batches make one update, as if they were one large batch.
    `label_smoothing=e` trains towards 1 - e on the target and e spread over all tokens, so that no
    logit need grow without end (Szegedy et al. 2015, arXiv:1512.00567, sec. 7). `dtype` is the
    precision of matrix products (float16 adds loss scaling). `evaluate(model)` runs every
    `eval_every` steps and after the last. `checkpoint` is written every `checkpoint_every` steps,
    after the last, and when you stop or interrupt it; `resume=True` goes on from it, if it is
    there: exactly, where `batches` has a `state_dict`, as TokenBatches has; another source starts
    again from its beginning.

    Raises ValueError for bad arguments, FloatingPointError when the loss or a gradient is not finite.

    >>> from llmcourse.model import GPT, ModelConfig
    >>> ids = torch.arange(8).repeat(4, 1)
    >>> model = GPT(ModelConfig(vocab_size=8, d_model=16, n_layers=1))
    >>> [step.step for step in train(model, [(ids[:, :-1], ids[:, 1:])], steps=2)]
    [1, 2]
    """
    if steps < 1 or accumulate < 1:
        raise ValueError(f"steps={steps} and accumulate={accumulate} must be at least 1")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing={label_smoothing}: must be in [0, 1); 0 is none, 0.1 is usual")
    device = next(model.parameters()).device
    if optimizer is None:
        groups = parameter_groups(model, weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    parts = dict(optimizer=optimizer, scaler=scaler)
    if hasattr(batches, "state_dict"):
        parts["batches"] = batches
    done, tokens, seconds = 0, 0, 0.0
    if resume and checkpoint is not None and Path(checkpoint).exists():
        numbers = load_checkpoint(checkpoint, model, **parts)
        done, tokens, seconds = numbers["step"], numbers["tokens"], numbers["seconds"]

    def save() -> None:
        if checkpoint is not None:
            save_checkpoint(checkpoint, model, **parts, step=done, tokens=tokens, seconds=seconds)

    source = endless(batches)
    bar = tqdm(total=steps, initial=done, unit="step", leave=False, disable=not someone_is_watching())
    model.train()
    model.zero_grad(set_to_none=True)  # an earlier error may have left gradients
    saved, before, updating = done, None, False
    try:
        while done < steps:
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(done)
            before = batches.state_dict() if "batches" in parts else None, random_state()
            micro_batches = [next(source) for _ in range(accumulate)]
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
    except (GeneratorExit, KeyboardInterrupt):  # stopped early: go back to the last whole step
        if saved != done and not updating:
            if before is not None:
                place, random = before
                set_random_state(random)
                if place is not None:
                    batches.load_state_dict(place)
            save()
        raise
    finally:
        bar.close()


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
