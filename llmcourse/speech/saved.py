"""A recognizer or a synthesizer in a folder: its weights, its shape, and how waves become its features."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmcourse.data.manifest import course_data
from llmcourse.speech.features import MelConfig
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig
from llmcourse.speech.synthesizer import Synthesizer, SynthesizerConfig
from llmcourse.support.files import atomic_write
from llmcourse.weights import load_state, rounded

WEIGHTS, SHAPE, SPEAKS = "model.safetensors", "recognizer.json", "synthesizer.json"


def save_recognizer(folder: str | Path, model: Recognizer, features: MelConfig, dtype=torch.float16) -> None:
    """Write model.safetensors (in `dtype`) and recognizer.json into `folder`. Raises ValueError for weights that `dtype` cannot hold."""
    _save(Path(folder), SHAPE, model, features, dtype)


def load_recognizer(folder: str | Path) -> tuple[Recognizer, MelConfig]:
    """Return the recognizer, in float32 and ready to evaluate, and how waves become its features.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or does not belong.
    """
    return _load(Path(folder), SHAPE, lambda config: Recognizer(RecognizerConfig(**config)))


def save_synthesizer(
    folder: str | Path, model: Synthesizer, features: MelConfig, dtype=torch.float16
) -> None:
    """Write model.safetensors (in `dtype`) and synthesizer.json into `folder`. Raises ValueError for weights that `dtype` cannot hold."""
    _save(Path(folder), SPEAKS, model, features, dtype)


def load_synthesizer(folder: str | Path) -> tuple[Synthesizer, MelConfig]:
    """Return the synthesizer, in float32 and ready to evaluate, and the features that it writes.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or does not belong.
    """
    return _load(Path(folder), SPEAKS, lambda config: Synthesizer(SynthesizerConfig(**config)))


def _save(folder: Path, shape: str, model: torch.nn.Module, features: MelConfig, dtype) -> None:
    state = {name: rounded(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    content = {shape.removesuffix(".json"): asdict(model.config), "features": asdict(features)}
    with atomic_write(folder / WEIGHTS) as weights, atomic_write(folder / shape) as described:
        save_file(state, weights)
        described.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _load(folder: Path, shape: str, build) -> tuple:
    kind = shape.removesuffix(".json")
    for name in (WEIGHTS, shape):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: it is not a folder of save_{kind}")
    try:
        content = json.loads((folder / shape).read_text(encoding="utf-8-sig"))
        model = build(content[kind])
        features = MelConfig(**content["features"])
        state = load_file(folder / WEIGHTS)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / shape} is no file of save_{kind} ({error}): save it again") from error
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


def load_course_aligner() -> tuple[Recognizer, MelConfig]:
    """Return the recognizer of phonemes that finds when each is said in the recordings of `voice`.

    >>> load_course_aligner()[0].config.labels[0]
    '_'
    """
    return load_course_recognizer("aligner")


def load_course_synthesizer() -> tuple[Synthesizer, MelConfig]:
    """Return the synthesizer that the course ships, and the features that it writes.

    >>> model, features = load_course_synthesizer()
    >>> model.say(["_", "l", "ˈæ", "m", "p", "_"])[0].shape[1] == features.n_mels
    True
    """
    return load_synthesizer(course_data() / "checkpoints" / "synthesizer")
