"""Go on with a run of `train`: the state is the checkpoint's, the arguments are those that you give now."""

import copy
from pathlib import Path

import torch
from torch import nn

from llmcourse.checkpoint import check_config, read_checkpoint, restore, try_checkpoint
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
    for each in getattr(optimizer, "optimizers", [optimizer]):  # those of optim.Together
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


def begin_run(
    path: str | Path | None, resume: bool, model: nn.Module, steps: int, given: list[dict], **parts
) -> tuple[int, int, float]:
    """Return the steps, tokens and seconds that are done: 0, or those of the checkpoint at `path`, restored.

    Raises OSError now, not after an hour of training, where nothing can be written to `path`.
    """
    if path is not None:
        try_checkpoint(path, model, **parts, given=given)
        if resume and Path(path).exists():
            return resume_run(path, model, steps, given, **parts)
    return 0, 0, 0.0


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
