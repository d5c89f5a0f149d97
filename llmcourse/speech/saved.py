"""A recognizer in a folder: its weights, what it can hear, and how waves become its features."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmcourse.data.manifest import course_data
from llmcourse.speech.features import MelConfig
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig
from llmcourse.support.files import atomic_write
from llmcourse.weights import load_state, rounded

WEIGHTS, SHAPE = "model.safetensors", "recognizer.json"


def save_recognizer(folder: str | Path, model: Recognizer, features: MelConfig, dtype=torch.float16) -> None:
    """Write model.safetensors (in `dtype`) and recognizer.json into `folder`. Raises ValueError for weights that `dtype` cannot hold."""
    state = {name: rounded(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    content = {"recognizer": asdict(model.config), "features": asdict(features)}
    with atomic_write(Path(folder) / WEIGHTS) as weights, atomic_write(Path(folder) / SHAPE) as shape:
        save_file(state, weights)
        shape.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_recognizer(folder: str | Path) -> tuple[Recognizer, MelConfig]:
    """Return the recognizer, in float32 and ready to evaluate, and how waves become its features.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or does not belong.
    """
    folder = Path(folder)
    for name in (WEIGHTS, SHAPE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: it is not a folder of save_recognizer")
    try:
        content = json.loads((folder / SHAPE).read_text(encoding="utf-8-sig"))
        model = Recognizer(RecognizerConfig(**content["recognizer"]))
        features = MelConfig(**content["features"])
        state = load_file(folder / WEIGHTS)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder / SHAPE} is no file of save_recognizer ({error}): save it again"
        ) from error
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is no safetensors file, or cut short: copy it again") from error
    load_state(model, state, folder / WEIGHTS)
    return model.eval(), features


def load_course_recognizer(name: str = "recognizer") -> tuple[Recognizer, MelConfig]:
    """Return a recognizer that the course ships, and how waves become its features.

    "recognizer" knows 89 words as eSpeak NG says them, "recognizer_people" the digits as people do, by telephone.

    >>> model, features = load_course_recognizer()
    >>> model.text(model.labels_of("call anna"))
    'call anna'
    """
    return load_recognizer(course_data() / "checkpoints" / name)
