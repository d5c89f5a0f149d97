"""Go on with a run of `train`: the state is the checkpoint's, the arguments are those that you give now."""

import copy
from pathlib import Path

import torch
from torch import nn

from llmcourse.checkpoint import (
    check_config,
    random_state,
    read_checkpoint,
    restore,
    save_checkpoint,
    set_random_state,
    try_checkpoint,
)
from llmcourse.weights import plain_name, unwrap

FREE = ("foreach", "fused", "capturable", "differentiable", "maximize")  # switches that need no state
NOT_OPTIONS = ("params", "param_names", "last_lr")  # of an optimizer's group


def describe(model: nn.Module, optimizer) -> list[dict]:
    """Return for each group of an optimizer its class, its parameters' names, and its options.

    >>> import torch
    >>> layer = nn.Linear(2, 2)
    >>> (group,) = describe(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    >>> group["class"], group["parameters"], group["options"]["lr"]
    ('torch.SGD', ['weight', 'bias'], 0.1)
    """
    names = {id(p): plain_name(name) for name, p in unwrap(model).named_parameters()}
    groups = []
    for each in getattr(optimizer, "optimizers", [optimizer]):  # of an OptimizerList
        kind = f"{type(each).__module__.split('.')[0]}.{type(each).__qualname__}"
        for group in each.param_groups:
            parameters = [names.get(id(p), f"one of shape {tuple(p.shape)}") for p in group["params"]]
            groups.append({"class": kind, "parameters": parameters, "options": options_of(group)})
    return copy.deepcopy(groups)


def options_of(group: dict) -> dict:
    """Return the options of an optimizer's group."""
    return {name: value for name, value in group.items() if name not in NOT_OPTIONS}


def saved_groups(state: dict) -> list[dict]:
    """Return the groups in the state of a torch optimizer, or of several together; [] for any other."""
    return [group for each in state.get("optimizers", [state]) for group in each.get("param_groups", [])]


def describe_saved(parts: dict) -> list[dict]:
    """Return the description that a checkpoint holds; of an older one, what its optimizer's state tells."""
    older = [
        {"class": None, "parameters": [None] * len(group["params"]), "options": options_of(group)}
        for group in saved_groups(parts["optimizer"])
    ]
    return parts.get("given", older)


def other_kind(there: dict, here: dict) -> bool:
    """Return whether two groups belong to optimizers of different classes, as far as can be told."""
    if there["class"] is None:  # only torch's have "foreach"; the numbers differ from class to class
        names = [
            {n for n, v in group["options"].items() if n == "foreach" or type(v) not in (bool, type(None))}
            for group in (there, here)
        ]
        return names[0] != names[1]
    packages, names = zip(*(group["class"].split(".", 1) for group in (there, here)), strict=True)
    return names[0] != names[1] or (packages[0] != packages[1] and "__main__" not in packages)


def difference(there: list[dict], here: list[dict]) -> str | None:
    """Say in which way a run cannot go on with another optimizer; None if it can.

    It cannot with a switch that needs a state which the run does not have, such as amsgrad.
    """
    for old, new in zip(there, here, strict=False):
        if other_kind(old, new):
            return f"it is {old['class'] or old['options']} there and {new['class']} here"
    if len(there) != len(here):
        return f"it has {len(there)} groups there and {len(here)} here"
    for i, (old, new) in enumerate(zip(there, here, strict=True)):
        then, now = old["parameters"], new["parameters"]
        if len(then) != len(now) or (None not in then and then != now):
            only = [sorted(set(a) - set(b), key=str)[:3] for a, b in ((then, now), (now, then))]
            return (
                f"group {i} has {len(then)} parameters there and {len(now)} here, or in another order; "
                f"only there: {only[0]}, only here: {only[1]}"
            )
        for name, value in old["options"].items():
            other = new["options"].get(name, value)
            begins = (name, new["class"]) == ("momentum", "torch.RMSprop") and not value  # it has no mean yet
            if other != value and name not in FREE and (begins or bool in (type(value), type(other))):
                return f"{name} is {value} there and {other} here"
    return None


def check_precision(saved: dict, model: nn.Module, path) -> None:
    """Raise ValueError where the model's precision cannot hold the saved weights: the run would jump."""
    for name, p in unwrap(model).named_parameters():
        there = saved.get(plain_name(name), p).dtype
        if torch.promote_types(there, p.dtype) != p.dtype:
            raise ValueError(
                f"{path} has {name} in {there} and this model in {p.dtype}: keep the model in {there}; "
                "train(dtype=...) chooses the precision of the products"
            )


def resume_run(
    path: str | Path, model: nn.Module, steps: int, given: list[dict], optimizer, **parts
) -> tuple[int, int, float]:
    """Restore a run in place; return the steps, tokens and seconds of training that it has done.

    `given` is the optimizer as you give it now (`describe`). An option of it (learning rate, betas,
    decay, momentum, ...) that is not the one with which the run began is used from now on; without
    such a change the run goes on to the bit. A run in float32 goes on in float16 with a fresh loss
    scaler. `batches` that the run did not have start from where they are.

    Raises ValueError, naming the difference, for another model, an optimizer of another class or
    with other parameters, other data, and fewer `steps` than are done.
    """
    content = read_checkpoint(path)
    saved = content["parts"]
    check_config(content["config"], getattr(unwrap(model), "config", None), path)
    check_precision(content["model"], model, path)
    if lacking := {"optimizer", "scaler", "step", "tokens", "seconds"} - saved.keys():
        raise ValueError(f"{path} holds no {', no '.join(sorted(lacking))}: it is not of a run of train")
    if steps < saved["step"]:
        raise ValueError(
            f"steps={steps}, but the run in {path} has done {saved['step']}: give at least as many, or "
            "start another run with resume=False"
        )
    before = describe_saved(saved) or given
    if (words := difference(before, given)) is not None:
        raise ValueError(
            f"{path} is of a run with another optimizer: {words}. Give the one that the run began with, "
            "or start another run with resume=False"
        )
    changes = [
        {n: v for n, v in new["options"].items() if n not in old["options"] or old["options"][n] != v}
        for old, new in zip(before, given, strict=True)
    ]
    for group, change in zip(saved_groups(saved["optimizer"]), changes, strict=False):
        group.update(change)  # before they are loaded: torch puts the state where fused=True needs it
    if "batches" not in saved:
        parts.pop("batches", None)
    restore(content, path, model, optimizer=optimizer, **parts)
    return saved["step"], saved["tokens"], saved["seconds"]


class RunState:
    """How far a run of `train` is, its file, if it has one, and the way back to its last whole step.

    In `with state:` a run may stop anywhere, by an error, an interrupt or a `break`. What an unfinished
    step took (batches, random numbers) is put back, and the last whole step is saved. Two things are not
    saved, since what the file held before is worth more: the half of an update, or of a change to the
    model's buffers (such as running means), and a model whose loss is not finite.
    """

    def __init__(self, path: str | Path | None, model: nn.Module, optimizer, scaler, batches):
        self.path, self.model, self.optimizer, self.scaler = path, model, optimizer, scaler
        self.parts = dict(optimizer=optimizer, scaler=scaler)
        if hasattr(batches, "state_dict"):
            self.parts["batches"] = batches
        self.given = describe(model, optimizer)
        self.step, self.tokens, self.seconds = 0, 0, 0.0

    def begin(self, resume: bool, steps: int) -> None:
        """Go on from the file, if there is one and `resume`; raise OSError now if it cannot be written."""
        if self.path is not None:
            try_checkpoint(self.path, self.model, **self.parts, given=self.given)
            if resume and Path(self.path).exists():
                done = resume_run(self.path, self.model, steps, self.given, **self.parts)
                self.step, self.tokens, self.seconds = done
        self.saved, self.before, self.updating = self.step, None, False
        self.buffers = list(self.model.buffers())

    def step_begins(self) -> None:
        """Note where to go back to, should the step not be finished."""
        place = self.parts["batches"].state_dict() if "batches" in self.parts else None
        self.before = place, random_state(), self.buffer_versions()

    def update_begins(self) -> None:
        """Note that from here on the model is no longer that of the last whole step."""
        self.updating = True

    def step_ends(self, count: float, seconds: float) -> None:
        """Count a step that is whole."""
        self.step, self.tokens, self.seconds = self.step + 1, self.tokens + count, self.seconds + seconds
        self.before, self.updating = None, False

    def buffer_versions(self) -> list[int]:
        """Return how often each buffer was written to: without a copy it shows whether one was since."""
        return [buffer._version for buffer in self.buffers]

    def save(self) -> None:
        """Write the state to the file."""
        if self.path is not None:
            numbers = dict(given=self.given, step=self.step, tokens=self.tokens, seconds=self.seconds)
            save_checkpoint(self.path, self.model, **self.parts, **numbers)
        self.saved = self.step

    def __enter__(self) -> "RunState":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        half = self.updating or (self.before is not None and self.before[2] != self.buffer_versions())
        if error is None or self.saved == self.step or half or isinstance(error, FloatingPointError):
            return
        if self.before is not None:
            place, random, _ = self.before
            set_random_state(random)
            if place is not None:
                self.parts["batches"].load_state_dict(place)
        self.save()
