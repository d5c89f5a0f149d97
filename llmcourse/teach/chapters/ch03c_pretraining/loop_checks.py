"""The check of the training loop that a learner writes."""

from collections import Counter
from functools import partial

import torch
import torch.nn.functional as F

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, several
from llmcourse.training import train


def losses_of_train(model, batches, optimizer):
    """The losses of the package's own loop."""
    return [step.loss for step in train(model, batches, steps=len(batches), optimizer=optimizer, clip=None)]


def without_graph(value):
    """A loss as a number: a tensor that still holds its computation keeps all of it in memory."""
    holds = isinstance(value, torch.Tensor) and value.grad_fn is not None
    require(not holds, "each loss still holds the computation that made it: append loss.item(), a number")
    return number(value)


def tiny_run(n_batches, make_optimizer, seed):
    """A model that can start again, batches for it, and its optimizer."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Embedding(7, 6), torch.nn.Linear(6, 7))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    model.start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.randint(7, (n_batches, 2, 6), generator=generator)
    return model, [(rows[:, :-1], rows[:, 1:]) for rows in ids], make_optimizer(model.parameters())


def from_start(function):
    """The same function of (model, batches, optimizer), from the first parameters each time it is called."""

    def run(model, batches, optimizer):
        model.load_state_dict(model.start)
        optimizer.state.clear()
        optimizer.zero_grad()
        return function(model, batches, optimizer)

    return run


def slipped_loop(
    order="loss backward step zero", pick=lambda x, y: y, change=lambda z: z, later=False, sums=False
):
    """The loop with its lines in another order, other targets or changed logits; `later`: the loss after the step."""

    def loop(model, batches, optimizer):
        losses = []
        for inputs, targets in batches:

            def compute(inputs=inputs, targets=targets):
                logits = change(model(inputs)).flatten(0, 1)
                reduction = "sum" if sums else "mean"
                return F.cross_entropy(logits, pick(inputs, targets).flatten(), reduction=reduction)

            for name in order.split():
                if name == "loss":
                    loss = compute()
                elif name == "backward":
                    loss.backward()
                else:
                    (optimizer.step if name == "step" else optimizer.zero_grad)()
            losses.append((compute() if later else loss).item())
        return losses

    return loop


def on_first_batch(model, batches, optimizer):
    """A loop that takes the first batch each time."""
    return losses_of_train(model, [batches[0]] * len(batches), optimizer)


@exercise(
    "03c-loop",
    "Write the training loop",
    minutes=12,
    difficulty=2,
    hints=(
        "`for inputs, targets in batches:`, and a list to which each turn appends one loss.",
        "In each turn, in this order: logits, loss, loss.backward(), optimizer.step(), optimizer.zero_grad().",
        "F.cross_entropy wants logits (B·T, V) and targets (B·T,): logits.flatten(0, 1), targets.flatten(). "
        "loss.item() is the loss as a number.",
    ),
    wants="function",
    form=several(without_graph, which="the loss of each batch"),
)
def check_loop(answer):
    """Compare the losses with those of the reference loop; see which calls were made, and what was learned."""
    sgd, adamw = partial(torch.optim.SGD, lr=0.3), partial(torch.optim.AdamW, lr=0.1)
    cases = {
        "for four small batches your losses are {value}; they should be {right}": tiny_run(4, sgd, 0),
        "right with SGD, but not with AdamW: your losses are {value}, not {right}": tiny_run(4, adamw, 1),
        "right for four batches, but not for six: your losses are {value}, not {right}": tiny_run(6, sgd, 2),
    }
    right, answer = from_start(losses_of_train), from_start(answer)
    check_calls(answer, *next(iter(cases.values())))
    slips = {
        "the gradients of the batches add up: call optimizer.zero_grad() in each turn": slipped_loop(
            "loss backward step"
        ),
        "the parameters never move, each step finds an empty gradient: first backward(), then step(), and no "
        "zero_grad() between the two": (
            slipped_loop("loss backward zero step"),
            slipped_loop("zero step loss backward"),
        ),
        "you compare with the inputs: the targets are the tokens that really came": slipped_loop(
            pick=lambda x, y: x
        ),
        "F.cross_entropy takes logits, and does the softmax itself: leave yours out": (
            slipped_loop(change=lambda z: z.softmax(-1)),
        ),
        "that is the sum over a batch: take the mean, as F.cross_entropy does by itself": slipped_loop(
            sums=True
        ),
        "these are the losses AFTER each step: take the one that you called backward() on": slipped_loop(
            later=True
        ),
        "you train on the first batch again and again: take the next one in each turn": on_first_batch,
    }
    slips = {sentence: _each(from_start, wrong) for sentence, wrong in slips.items()}
    examine(answer, right, cases, slips, rtol=1e-4, atol=1e-5)
    for case in cases.values():
        learned = [(function(*case), case[0][1].weight.detach().clone())[1] for function in (answer, right)]
        require(
            torch.allclose(*learned, rtol=1e-3, atol=1e-4),
            "the losses are right, but the model is not what it should be after the last batch: is there a step "
            "after each backward(), also after the last?",
        )
    return "the same losses as the package's `train` gives, and the same model at the end."


def _each(change, functions):
    """Apply `change` to a function, or to each of a tuple."""
    return tuple(map(change, functions)) if isinstance(functions, tuple) else change(functions)


def check_calls(answer, model, batches, optimizer):
    """Raise NotRight unless there are a backward pass, a step and a loss for each batch."""
    seen = Counter()
    hooks = [
        model[1].bias.register_hook(lambda gradient: seen.update(["backward"])),
        optimizer.register_step_pre_hook(lambda *arguments: seen.update(["step"])),
    ]
    try:
        losses = answer(model, batches, optimizer)
    except RuntimeError as error:
        require(
            "modified by an inplace operation" not in str(error),
            "step() changes parameters that backward() still needs: first loss.backward(), then optimizer.step()",
        )
        raise
    finally:
        [hook.remove() for hook in hooks]
    n = len(batches)
    require(seen["backward"], "nothing is differentiated: loss.backward() fills in the gradients")
    require(seen["step"], "the parameters never move: optimizer.step() moves them")
    require(
        len(losses) > 1,
        f"there are {n} batches, and you return the loss of one: is `return` inside the loop?",
    )
    require(len(losses) == n, f"return one loss for each of the {n} batches; yours are {len(losses)}")
    for name, count in seen.items():
        require(count == n, f"call {name}() once for each batch: for {n} batches you call it {count} times")
