"""A model in a folder: weights, configuration and tokenizer, which belong together."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from llmcourse.data.manifest import course_data
from llmcourse.model import GPT
from llmcourse.packed import Packed, Scheme
from llmcourse.packed_model import make_room, packed_schemes
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import BPETokenizer
from llmcourse.weights import config_and_state, load_state, rounded, unwrap


def save_model(folder: str | Path, model: GPT, tokenizer: BPETokenizer, dtype=torch.float16) -> None:
    """Write model.safetensors (in `dtype`), config.json and tokenizer.json into `folder`.

    The model may have more rows than the tokenizer has tokens, as when a vocabulary is padded to a
    round number. Packed weights are written as they are, and config.json names their schemes. Raises
    ValueError, before anything is written, for what would not come back: fewer rows than tokens,
    adapters, weights of `QuantizedLinear`, weights that `dtype` cannot hold.
    """
    config, state = config_and_state(model, packed=True)
    schemes = packed_schemes(unwrap(model))
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {config.vocab_size}: they do "
            "not belong together, take both from one run"
        )
    if config.tied_embeddings:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("unembedding.")}
    exact = {f"{name}.{part}" for name in schemes for part in Packed.PARTS}
    state = {
        name: tensor.cpu().contiguous() if name in exact else rounded(name, tensor, dtype)
        for name, tensor in state.items()
    }
    content = asdict(config)
    if schemes:
        content["packed"] = {name: asdict(scheme) for name, scheme in schemes.items()}
    with (
        atomic_write(Path(folder) / "model.safetensors") as weights,
        atomic_write(Path(folder) / "config.json") as configuration,
        atomic_write(Path(folder) / "tokenizer.json") as tokens,
    ):
        save_file(state, weights, {"tokens": str(tokenizer.vocab_size)})
        configuration.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        tokenizer.save(tokens)


def load_model(folder: str | Path, kind: type[GPT] = GPT) -> tuple[GPT, BPETokenizer]:
    """Return the model, in float32 and ready to evaluate, and its tokenizer from `folder`.

    Packed layers stay packed, and frozen. `kind` is the class of the model that was saved, such as
    `tune.techniques.TechniqueGPT`. Raises FileNotFoundError when a file is missing, ValueError when
    one is damaged or of another program, or when they do not belong together.
    """
    folder = Path(folder)
    model = _empty_model(folder, kind)
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tokens = int((file.metadata() or {}).get("tokens", model.config.vocab_size))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or cut short ({error}): copy it or save it again"
        ) from error
    if tokenizer.vocab_size != tokens:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the model {tokens}; they do "
            "not belong together, take both from one run"
        )
    if model.config.tied_embeddings:
        for name in [name for name in state if name.startswith("token_embedding.")]:
            state.setdefault(name.replace("token_embedding", "unembedding"), state[name])
    load_state(model, state, path)
    return model.eval(), tokenizer


def _empty_model(folder: Path, kind: type[GPT]) -> GPT:
    """Return the model that config.json describes, without its weights."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is not a folder of save_model")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # an editor may have put a mark first
        if "model_type" in content:
            raise ValueError(
                f"this is a model of transformers, read it with from_transformers({str(folder)!r})"
            )
        schemes = {name: Scheme(**scheme) for name, scheme in content.get("packed", {}).items()}
        content.pop("packed", None)
        if unknown := content.keys() - {field.name for field in fields(kind.config_type)}:
            raise ValueError(
                f"{sorted(unknown)} are no fields of {kind.config_type.__name__} in this version of llmcourse; a "
                "model of another class is loaded with kind=, as load_model(folder, TechniqueGPT)"
            )
        model = kind(kind.config_type(**content))
        make_room(model, schemes)
        return model.requires_grad_(not schemes)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no configuration of save_model: {error}") from error


def course_stages() -> list[str]:
    """Return the names of the shipped stages of the course model."""
    return sorted(path.parent.name for path in course_data().glob("checkpoints/*/config.json"))


def load_course_model(stage: str = "pretrained") -> tuple[GPT, BPETokenizer]:
    """Return the course's own model at a stage, and its tokenizer. Raises ValueError if unknown."""
    if stage not in course_stages():
        raise ValueError(f"stage={stage!r} is not shipped: choose one of {course_stages()}")
    return load_model(course_data() / "checkpoints" / stage)
