"""Chapter 3c: answers that learners give, right and wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong

from llmcourse.teach.chapters.ch03c_pretraining.loop_checks import losses_of_train, tiny_run
from llmcourse.teach.chapters.ch03c_pretraining.solutions import train_steps
from llmcourse.teach.checks import verdict

RIGHT, WRONG = {}, {}


# 03c-loss


def loss_by_loops(logits, targets):
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        largest = max(row)
        total += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[target]
    return total / len(targets)


def picked(table, targets):
    return table[torch.arange(len(targets)), targets]


def loss_in_place(logits, targets):
    logits -= logits.logsumexp(-1, keepdim=True)
    return -picked(logits, targets).mean()


own_cross_entropy = F.cross_entropy
RIGHT["03c-loss"] = [
    loss_by_loops,
    loss_in_place,
    lambda x, y: np.float64(loss_by_loops(x, y)),
    lambda x, y: (x.double().logsumexp(1) - x.double().gather(1, y[:, None])[:, 0]).mean(),
    lambda x, y: F.nll_loss(x.log_softmax(-1), y),
    lambda x, y: -(F.one_hot(y, x.shape[1]) * x.log_softmax(-1)).sum(-1).mean(0, keepdim=True),
]
WRONG["03c-loss"] = {
    "sign": ("NEGATIVE", lambda x, y: picked(x.log_softmax(-1), y).mean()),
    "sum": ("take the mean", lambda x, y: -picked(x.log_softmax(-1), y).sum()),
    "sum and sign": ("the sign is wrong, and", lambda x, y: picked(x.log_softmax(-1), y).sum()),
    "not reduced": ("the shape (6,)", lambda x, y: -picked(x.log_softmax(-1), y)),
    "bits": ("natural logarithm", lambda x, y: -picked(x.softmax(-1), y).log2().mean()),
    "wrong axis": ("each ROW", lambda x, y: -picked(x.log_softmax(0), y).mean()),
    "every target in every row": ("row i needs targets[i]", lambda x, y: -x.log_softmax(-1)[:, y].mean()),
    "mean over all": ("over the T positions", lambda x, y: -(F.one_hot(y, 9) * x.log_softmax(-1)).mean()),
    "no targets": ("pick the target's entry", lambda x, y: -x.log_softmax(-1).mean()),
    "no logarithm": ("logarithm is missing", lambda x, y: -picked(x.softmax(-1), y).mean()),
    "no softmax": ("normalize each row", lambda x, y: -picked(x, y).mean()),
    "overflow": ("not finite", lambda x, y: (x.exp().sum(-1).log() - picked(x, y)).mean()),
    "underflow": ("not finite", lambda x, y: -picked(x.softmax(-1), y).log().mean()),
    "small constant": ("finite but wrong", lambda x, y: -(picked(x.softmax(-1), y) + 1e-9).log().mean()),
    "clamped": ("finite but wrong", lambda x, y: loss_in_place(x.clamp(-50, 50), y)),
    "swapped": ("your code raised", lambda x, y: F.cross_entropy(y, x)),
    "without keepdim": ("your code raised RuntimeError", lambda x, y: -picked(x - x.logsumexp(-1), y).mean()),
    "perplexity": ("the perplexity", lambda x, y: loss_in_place(x, y).exp()),
    "log of the mean": ("log of the mean probability", lambda x, y: -picked(x.softmax(-1), y).mean().log()),
    "torch's own": ("without F.cross_entropy", F.cross_entropy),
    "torch's own as a module": ("without F.cross_entropy", torch.nn.CrossEntropyLoss()),
    "torch's own, imported": (
        "without F.cross_entropy",
        lambda x, y: own_cross_entropy(x, y, reduction="sum") / len(y),
    ),
    "targets one row on": ("one row too far", lambda x, y: -picked(x.log_softmax(-1), y.roll(1)).mean()),
    "likeliest token": ("the largest entry", lambda x, y: -x.log_softmax(-1).amax(-1).mean()),
    "fixed": ("the same for every input", lambda x, y: 3.9228),
    "rounded": ("rounded", lambda x, y: round(loss_by_loops(x, y), 2)),
}

# 03c-bits

RIGHT["03c-bits"] = [2.31, 4 * math.log2(math.e) / 2.5, np.float32(2.3083), 4 / np.log(2) / 2.5]
WRONG["03c-bits"] = {
    "nats per byte": ("nats per byte", 4 / 2.5),
    "bits per token": ("per TOKEN", 4 / math.log(2)),
    "times ln 2": ("MORE than a bit", 4 * math.log(2) / 2.5),
    "times 2.5": ("LESS than a token", 4 / math.log(2) * 2.5),
    "log2 of the loss": ("a logarithm already", math.log2(4) / 2.5),
    "log10": ("is not 4 nats", 4 / math.log(10) / 2.5),
    "times and times": ("is not 4 nats", 10.0),
}

# 03c-schedule


def rate(step, total, warmup, max_lr, *, first=1, until=0, share=None, curve=None):
    """The right schedule, with each part open to a slip."""
    if step < warmup + until:
        return max_lr * (step + first) / warmup
    progress = share(step, total, warmup) if share else (step - warmup) / (total - warmup)
    return max_lr * (curve(progress) if curve else 0.5 * (1 + math.cos(math.pi * progress)))


def rate_by_tensors(step, total_steps, warmup_steps, max_lr):
    rise = (step + 1) / warmup_steps
    fall = torch.cos(torch.tensor((step - warmup_steps) / (total_steps - warmup_steps)) * math.pi / 2) ** 2
    return max_lr * (rise if step < warmup_steps else fall)


def slipped(**slip):
    return lambda step, total, warmup, max_lr: rate(step, total, warmup, max_lr, **slip)


def rate_returns_in_warmup_only(step, total_steps, warmup_steps, max_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps


RIGHT["03c-schedule"] = [
    slipped(),
    slipped(first=1, curve=lambda p: np.float32(0.5 + 0.5 * np.cos(np.pi * p))),
    slipped(curve=lambda p: math.cos(math.pi / 2 * p) ** 2),
    rate_by_tensors,
]
WRONG["03c-schedule"] = {
    "starts at 0": ("Use (step + 1)", slipped(first=0)),
    "no max_lr": ("should be max_lr, 2.0; yours is 1.000", lambda s, t, w, m: rate(s, t, w, 1.0)),
    "warmup one step longer": ("The warmup is over", slipped(until=1)),
    "progress from step 0": ("Subtract warmup_steps", slipped(share=lambda s, t, w: s / t)),
    "progress not subtracted": ("Subtract warmup_steps", slipped(share=lambda s, t, w: s / (t - w))),
    "progress over all": ("divide by total_steps - warmup_steps", slipped(share=lambda s, t, w: (s - w) / t)),
    "one step too early": ("one step after the last", slipped(share=lambda s, t, w: (s - w) / (t - w - 1))),
    "not halved": ("halve it", slipped(curve=lambda p: 1 + math.cos(math.pi * p))),
    "rises": ("not 1 - cos", slipped(curve=lambda p: 0.5 * (1 - math.cos(math.pi * p)))),
    "no pi": ("cos(pi * progress)", slipped(curve=lambda p: 0.5 * (1 + math.cos(p)))),
    "whole cosine": ("cos(pi * progress)", slipped(curve=lambda p: 0.5 * (1 + math.cos(2 * math.pi * p)))),
    "stays": ("near 0; yours is 2.000", slipped(curve=lambda p: 1)),
    "straight line": ("straight line", slipped(curve=lambda p: 1 - p)),
    "quarter of a cosine": ("a quarter of a cosine", slipped(curve=lambda p: math.cos(math.pi / 2 * p))),
    "one step late": ("one step after the last", slipped(share=lambda s, t, w: (s - w + 1) / (t - w))),
    "no warmup": ("the warmup is missing", slipped(until=-1000, share=lambda s, t, w: s / t)),
    "not shifted up": ("goes down to -1", slipped(curve=lambda p: math.cos(math.pi * p))),
    "rounded": ("rounded", lambda *a: round(rate(*a), 2)),
    "fixed numbers": ("but not for 200", lambda s, t, w, m: rate(s, 100, 10, m)),
    "a list": ("give a number, not [", lambda s, t, w, m: [rate(step, t, w, m) for step in range(t)]),
    "swapped": ("your code raised ZeroDivisionError", lambda s, t, w, m: rate(s, w, w, m)),
}

# 03c-temperature


def temperature_by_loop(logits, temperature):
    exponentials = [math.exp(x / temperature) for x in logits]
    return [e / sum(exponentials) for e in exponentials]


RIGHT["03c-temperature"] = [
    temperature_by_loop,
    lambda x, t: np.array(temperature_by_loop(x, t)),
    lambda x, t: x.softmax(0) ** (1 / t) / (x.softmax(0) ** (1 / t)).sum(),
    lambda x, t: x.div_(t).double().softmax(0),
]
WRONG["03c-temperature"] = {
    "divides probabilities": ("Divide the LOGITS", lambda x, t: x.softmax(-1) / t),
    "multiplies": ("must sharpen", lambda x, t: (x * t).softmax(-1)),
    "ignores it": ("no effect", lambda x, t: x.softmax(-1)),
    "no softmax": ("softmax is missing", lambda x, t: x / t),
    "log_softmax": ("LOG-probabilities", lambda x, t: (x / t).log_softmax(-1)),
    "no sum": ("must sum to 1", lambda x, t: (x / t).exp()),
    "softmax twice": ("softmax twice", lambda x, t: (x.softmax(-1) / t).softmax(-1)),
    "square": ("that is not softmax(logits / temperature)", lambda x, t: (x / t**2).softmax(-1)),
    "fixed": ("but not at 3", lambda x, t: (x / 0.5).softmax(-1)),
    "token": ("not the shape ()", lambda x, t: (x / t).argmax()),
    "largest": ("not the shape ()", lambda x, t: (x / t).softmax(-1).max()),
    "sampled": ("not the shape (1,)", lambda x, t: (x / t).softmax(-1).multinomial(1)),
    "swapped": ("your code raised", lambda x, t: (t / x).softmax(x)),
    "extra dimension": ("not the shape (1, 4)", lambda x, t: (x[None] / t).softmax(-1)),
    "no dimension named": ("your code raised TypeError", lambda x, t: (x / t).softmax()),
}


# 03c-loop


def ce(logits, targets, **options):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), **options)


def loop_by_steps(model, batches, optimizer, turn):
    """A loop whose turn is written in the table: a function that returns the loss to keep."""
    return [turn(model, x, y, optimizer) for x, y in batches]


def turn(*lines, keep=lambda loss: loss.item()):
    """A turn of the loop: each line is called with the model, the optimizer and the loss."""

    def one(model, x, y, optimizer):
        loss = ce(model(x), y)
        for line in lines:
            line(model, optimizer, loss)
        return keep(loss)

    return lambda model, batches, optimizer: loop_by_steps(model, batches, optimizer, one)


def zero(model, optimizer, loss):
    optimizer.zero_grad()


def zero_model(model, optimizer, loss):
    model.zero_grad(set_to_none=False)


def back(model, optimizer, loss):
    loss.backward()


def step(model, optimizer, loss):
    optimizer.step()


def detached(loss):
    return loss.detach()


def loop_as_generator(model, batches, optimizer):
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).transpose(1, 2), y)
        loss.backward()
        optimizer.step()
        yield loss.item()


def loop_returns_inside(model, batches, optimizer):
    losses = []
    for x, y in batches:
        loss = ce(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        return losses


def loop_steps_at_the_end(model, batches, optimizer):
    losses = [ce(model(x), y) for x, y in batches]
    sum(losses).backward()
    optimizer.step()
    return [loss.item() for loss in losses]


def loop_steps_first(model, batches, optimizer):
    losses = []
    for x, y in batches:
        optimizer.step()
        optimizer.zero_grad()
        loss = ce(model(x), y)
        loss.backward()
        losses.append(loss.item())
    return losses


def loop_by_hand(model, batches, optimizer):
    losses = []
    for x, y in batches:
        loss = ce(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= optimizer.param_groups[0]["lr"] * p.grad
        losses.append(loss.item())
    return losses


def loop_skips_last_step(model, batches, optimizer):
    losses = []
    for i, (x, y) in enumerate(batches):
        loss = ce(model(x), y)
        loss.backward()
        if i < len(batches) - 1:
            optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def loop_with_its_own_optimizer(model, batches, optimizer):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return turn(back, step, zero)(model, batches, optimizer)


def on_one_batch(model, batches, optimizer):
    return turn(zero, back, step)(model, batches[:1] * len(batches), optimizer)


def two_epochs(model, batches, optimizer):
    return turn(zero, back, step)(model, batches * 2, optimizer)


def loss_after_the_step(model, batches, optimizer):
    losses = []
    for x, y in batches:
        ce(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(ce(model(x), y).item())
    return losses


def changed(loss):
    """The loop, with another loss of (logits, inputs, targets)."""

    def one(model, x, y, optimizer):
        value = loss(model(x), x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return lambda model, batches, optimizer: loop_by_steps(model, batches, optimizer, one)


RIGHT["03c-loop"] = [
    turn(back, step, zero),
    turn(zero, back, step),
    turn(back, step, zero_model),
    turn(back, step, zero, keep=detached),
    turn(back, step, zero, keep=lambda loss: np.float32(loss.item())),
    lambda *arguments: torch.tensor(turn(back, step, zero)(*arguments)),
    loop_as_generator,
]
WRONG["03c-loop"] = {
    "no zero_grad": ("add up: call optimizer.zero_grad()", turn(back, step)),
    "no step": ("optimizer.step() moves them", turn(back, zero)),
    "no backward": ("loss.backward() fills in", turn(step, zero)),
    "nothing but losses": ("loss.backward() fills in", turn()),
    "step before backward": ("first loss.backward(), then", turn(step, zero, back)),
    "step before the logits": ("also after the last", loop_steps_first),
    "step before backward, zero at the end": ("never move", turn(step, back, zero)),
    "zero, step, backward": ("never move", turn(zero, step, back)),
    "zero_grad between the two": ("no zero_grad() between the two", turn(back, zero, step)),
    "two backward passes": ("your code raised RuntimeError", turn(back, back, step, zero)),
    "two steps": ("once for each batch: for 4 batches you call it 8 times", turn(back, step, step, zero)),
    "return inside the loop": ("is `return` inside the loop", loop_returns_inside),
    "the last loss": ("return a list of values", lambda *a: turn(back, step, zero)(*a)[-1]),
    "the mean": ("return a list of values", lambda *a: np.mean(turn(back, step, zero)(*a))),
    "one step at the end": ("you call it 1 time", loop_steps_at_the_end),
    "moves by hand": ("optimizer.step() moves them", loop_by_hand),
    "its own optimizer": ("optimizer.step() moves them", loop_with_its_own_optimizer),
    "no step for the last": ("you call it 3 times", loop_skips_last_step),
    "with its graph": ("append loss.item()", turn(back, step, zero, keep=lambda loss: loss)),
    "on the first batch": ("the first batch again and again", on_one_batch),
    "two epochs": ("one loss for each of the 4 batches; yours are 8", two_epochs),
    "after the step": ("AFTER each step", loss_after_the_step),
    "inputs as targets": ("with the inputs", changed(lambda z, x, y: ce(z, x))),
    "softmax first": ("leave yours out", changed(lambda z, x, y: ce(z.softmax(-1), y))),
    "sum": ("take the mean", changed(lambda z, x, y: ce(z, y, reduction="sum"))),
    "not flattened": ("your code raised", changed(lambda z, x, y: F.cross_entropy(z, y))),
    "bits": ("your losses are", changed(lambda z, x, y: ce(z, y) / math.log(2))),
    "without gradients": ("your code raised RuntimeError", torch.no_grad()(turn(back, step, zero))),
    "steps downhill twice as far": ("your losses are", changed(lambda z, x, y: ce(2 * z, y))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_a_branch_without_return_is_not_yet():
    assert verdict("03c-schedule", rate_returns_in_warmup_only)[0] == "not yet"


def test_the_solution_gives_what_train_gives():
    """The check's oracle is the package's loop; the solution stands apart from it."""
    results = []
    for loop in (train_steps, losses_of_train):
        model, batches, optimizer = tiny_run(5, lambda p: torch.optim.SGD(p, lr=0.3), seed=3)
        results.append((torch.tensor(loop(model, batches, optimizer)), model[1].weight.detach()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
