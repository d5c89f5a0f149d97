"""Save everything that a run needs to go on exactly as if it had never stopped."""

import contextlib
import pickle
import zipfile
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llmcourse.support.files import atomic_write
from llmcourse.weights import load_state, plain_name, refuse_two_ends, unwrap


def config_of(model: nn.Module) -> dict | None:
    """Return the model's configuration as a dictionary; None if it has none, or one that is no dataclass."""
    config = getattr(unwrap(model), "config", None)
    return asdict(config) if is_dataclass(config) else None


def check_config(saved: dict | None, config, path) -> None:
    """Raise ValueError, naming each field, if `saved` is not the dictionary of `config`.

    A field that `saved` lacks, since it is newer, has its default there.
    """
    mine = asdict(config) if is_dataclass(config) else None
    if saved is None and mine is None:
        return
    if saved is None or mine is None:
        there, here = ("a model without one", config) if saved is None else (saved, "a model without one")
        raise ValueError(
            f"{path} comes from another model, by its configuration: {there} there, {here} here. "
            "Build the model that was saved, or choose another path"
        )
    defaults = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    saved = defaults | saved
    names = [name for name in sorted(mine.keys() | saved.keys()) if mine.get(name) != saved.get(name)]
    if names:
        lines = "; ".join(f"{n} is {saved.get(n)!r} there and {mine.get(n)!r} here" for n in names)
        raise ValueError(
            f"{path} comes from another model: {lines}. Build the model with that configuration, "
            "or choose another path"
        )


def random_state() -> dict:
    """Return the state of torch's random generators, on the CPU and on every GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Go back to a state of `random_state`; of GPUs, those that this machine has too."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def content_of(model: nn.Module, parts: dict) -> dict:
    """Return what a checkpoint holds."""
    state = {plain_name(name): value for name, value in unwrap(model).state_dict().items()}
    states = {n: part.state_dict() if hasattr(part, "state_dict") else part for n, part in parts.items()}
    return {"config": config_of(model), "model": state, "random": random_state(), "parts": states}


def _write(content: dict, temporary: Path, path) -> None:
    """Write a file, and make sure that `load_checkpoint` will be able to read it."""
    try:
        torch.save(content, temporary)
        torch.load(temporary, weights_only=True, mmap=True)  # mapped: this reads no weights
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} could not be read again: the state of the model or of another part holds something "
            f"else than tensors, numbers, texts, lists and dictionaries ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Return the one line of torch's long advice that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "Unsupported" in line), lines[0])[:150]


def _without_tensors(value):
    if type(value) in (list, tuple):
        return [_without_tensors(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_tensors(item) for key, item in value.items()}
    return None if isinstance(value, Tensor) else value


class _NotMeantError(BaseException):
    """Ends `atomic_write` without a file, and is no error of the disk."""


def try_checkpoint(path: str | Path, model: nn.Module, **parts) -> None:
    """Raise now, not after an hour of training, what would keep `save_checkpoint` from its work."""
    content = _without_tensors(content_of(model, parts))
    with contextlib.suppress(_NotMeantError), atomic_write(path) as temporary:
        _write(content, temporary, path)
        raise _NotMeantError  # so the file that is there stays


def save_checkpoint(path: str | Path, model: nn.Module, **parts) -> None:
    """Write the model, its configuration, the random state, and `parts` to one file, atomically.

    A part is a number, or an object with `state_dict()` (optimizer, batches, loss scaler). Any module
    can be saved; a compiled one is saved as it is without `torch.compile`.

    Raises ValueError for a state that could not be read again, OSError when the file cannot be
    written, such as on a full disk; what was there before is kept.
    """
    content = content_of(model, parts)
    with atomic_write(path) as temporary:
        _write(content, temporary, path)


def read_checkpoint(path: str | Path) -> dict:
    """Return what `save_checkpoint` wrote.

    Raises FileNotFoundError, IsADirectoryError for a folder, ValueError for another or a damaged file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: train with checkpoint={path} first")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch does not look at the sums
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(content, dict) and content.keys() >= {"config", "model", "random", "parts"}):
            raise KeyError("no model, configuration, random state and parts in it")
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is no checkpoint of save_checkpoint, or a damaged one ({_reason(error)}): give "
            "another path, or remove it and start again"
        ) from error
    return content


def load_checkpoint(path: str | Path, model: nn.Module, **parts) -> dict:
    """Restore the model, the random state and those `parts` in place; return the numbers saved.

    A model that was compiled loads into one that is not, and the reverse. A loss scaler stays as it
    is where the run that was saved had none.

    Raises FileNotFoundError, or ValueError when the checkpoint is of another configuration or other
    weights, lacks a part, or is no checkpoint; then the model is as it was.
    """
    return restore(read_checkpoint(path), path, model, **parts)


def restore(content: dict, path, model: nn.Module, **parts) -> dict:
    """Do the work of `load_checkpoint` with the content of the file."""
    inner, states = unwrap(model), content["parts"]
    check_config(content["config"], getattr(inner, "config", None), path)
    refuse_two_ends(inner, content["model"], "")
    for name, part in parts.items():
        if name not in states:
            raise ValueError(f"{path} holds no {name}, but {sorted(states)}: it was saved without it")
        if isinstance(part, torch.amp.GradScaler) and not states[name]:
            continue
        try:
            part.load_state_dict(states[name])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds {name} of another kind ({error!r})") from error
    load_state(inner, content["model"], path)
    set_random_state(content["random"])
    return {n: part for n, part in states.items() if n not in parts}
