"""Save everything that a run needs to go on exactly as if it had never stopped."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from llmcourse.runtime import atomic_write


def check_config(saved: dict, config, path) -> None:
    """Raise ValueError, naming each field, if `saved` is not the dictionary of `config`."""
    mine = asdict(config)
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
    return state


def set_random_state(state: dict) -> None:
    """Go back to a state of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(path: str | Path, model: nn.Module, **parts) -> None:
    """Write the model, its configuration, the random state, and `parts` to one file, atomically.

    A part is a number, or an object with `state_dict()` (optimizer, batches, loss scaler).
    """
    states = {n: part.state_dict() if hasattr(part, "state_dict") else part for n, part in parts.items()}
    content = {"config": asdict(model.config), "model": model.state_dict(), "random": random_state()}
    with atomic_write(path) as temporary:
        torch.save({**content, "parts": states}, temporary)


def load_checkpoint(path: str | Path, model: nn.Module, **parts) -> dict:
    """Restore the model, the random state and those `parts` in place; return the numbers saved.

    Raises FileNotFoundError, or ValueError when the checkpoint is of another configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: train with checkpoint={path} first")
    content = torch.load(path, map_location="cpu", weights_only=True)
    check_config(content["config"], model.config, path)
    model.load_state_dict(content["model"])
    for name, part in parts.items():
        part.load_state_dict(content["parts"][name])
    set_random_state(content["random"])
    return {n: part for n, part in content["parts"].items() if n not in parts}
