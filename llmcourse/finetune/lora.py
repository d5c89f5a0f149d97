"""LoRA: leave the weights alone and train a small correction beside each of them.

Dimensions: r rank; a weight is (out, in), A is (r, in), B is (out, r).
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llmcourse.compress.qat import FakeQuantizedLinear
from llmcourse.model import GPT
from llmcourse.packed_model import are_tied
from llmcourse.support.files import atomic_write
from llmcourse.weights import plain_name, unwrap

TARGETS = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")  # every matrix of a block
FOR_TRAINING = ("tied_embeddings", "dropout", "zero_init", "embedding_std")  # say nothing about the weights


def _check_rank(layer: nn.Module, rank: int) -> None:
    widest = min(layer.in_features, layer.out_features)
    if rank not in range(1, widest + 1):
        raise ValueError(
            f"rank={rank}: a matrix of {layer.out_features} x {layer.in_features} has ranks 1 to {widest}"
        )


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained correction: y = x Wᵀ + b + (alpha / r) x Aᵀ Bᵀ.

    A begins random and B at zero, so at first nothing changes. `base` has `in_features`,
    `out_features` and `weight`: a Linear, or one with a quantized weight. A and B are float32, whatever
    the precision of the base, and what comes out has the precision of the base, as in peft.
    Raises ValueError unless 1 <= rank <= min(in_features, out_features).

    >>> layer = LoRALinear(nn.Linear(6, 4), rank=2)
    >>> sorted(name for name, p in layer.named_parameters() if p.requires_grad)
    ['A', 'B']

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float = 16.0):
        super().__init__()
        _check_rank(base, rank)
        self.base = base.requires_grad_(False)
        device = next(iter((*base.parameters(), *base.buffers()))).device
        self.register_buffer("scale", torch.tensor(alpha / rank, device=device))
        self.A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as in nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        y = self.base(x)
        return (y + self.scale * (x.to(self.A.dtype) @ self.A.T @ self.B.T)).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one ordinary layer with the weight W + (alpha / r) B A, in the precision of W."""
        W = self.base.weight
        bias = getattr(self.base, "bias", None)
        linear = nn.Linear(self.base.in_features, self.base.out_features, bias is not None)
        linear.weight = nn.Parameter((W + self.scale * self.B @ self.A).to(W.dtype))
        if bias is not None:
            linear.bias = nn.Parameter(bias.clone())
        return linear


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module by each of its names: one that stands in two places has two."""
    for name, module in unwrap(model).named_modules(remove_duplicate=False):
        yield plain_name(name), module


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers of `model` by their names."""
    return {name: module for name, module in _named_modules(model) if isinstance(module, LoRALinear)}


def _refuse_adapters(model: nn.Module) -> None:
    if lora_layers(model):
        raise ValueError("the model has adapters already: merge_lora first, or take a fresh copy")


def _adaptable(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in _named_modules(model) if hasattr(m, "in_features") and hasattr(m, "weight")}


def add_lora(model: GPT, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] = TARGETS) -> GPT:
    """Freeze `model` and put a correction beside every layer whose name ends in one of `targets`.

    Works in place and returns the model. Raises ValueError when a target matches no layer, when the
    model has adapters already or is prepared for QAT, or for a rank that a layer cannot have; then the model
    stays as it was.
    """
    _refuse_adapters(model)
    layers, wanted = _adaptable(model), {}
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    for target in targets or ("",):
        found = {name: layer for name, layer in layers.items() if f".{name}".endswith(f".{target}")}
        if not found:
            able = sorted({re.sub(r"^blocks\.\d+\.", "", name) for name in layers})
            raise ValueError(f"targets={targets}: {target!r} matches no layer: choose from {able}")
        wanted |= found
    wanted = {name: layer for name, layer in layers.items() if name in wanted}  # in the model's order
    if rounded := [name for name, layer in wanted.items() if isinstance(layer, FakeQuantizedLinear)]:
        raise ValueError(
            f"{rounded[0]} is trained with rounding (prepare_qat), which merging would lose: adapt the model before "
            "prepare_qat, or what finish_qat returns"
        )
    for layer in wanted.values():
        _check_rank(layer, rank)
    adapted = {id(layer): LoRALinear(layer, rank, alpha) for layer in wanted.values()}
    model.requires_grad_(False)
    for name, layer in wanted.items():
        _replace(unwrap(model), name, adapted[id(layer)])
    return model


def lora_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield every A and B: what an optimizer is given, and what a file of adapters holds."""
    for layer in {id(layer): layer for layer in lora_layers(model).values()}.values():
        yield from (layer.A, layer.B)


def merge_lora(model: GPT) -> GPT:
    """Add every correction to its weight, in place: the same outputs, no extra time, no adapters.

    A tied output that had a correction is a matrix of its own afterwards, and the configuration
    says so. In half precision the sum is rounded: merge in float32 where that matters.
    """
    inner, layers = unwrap(model), lora_layers(model)
    merged = {id(layer): layer.merged() for layer in layers.values()}
    for name, layer in layers.items():
        linear = merged[id(layer)]
        if not isinstance(layer.base.weight, nn.Parameter):  # quantized, and unpacked in float32
            linear.to(inner.token_embedding.weight.dtype)
        _replace(inner, name, linear)
    inner.config = replace(inner.config, tied_embeddings=are_tied(inner))
    return model.requires_grad_(True)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the configuration and of every weight: adapters fit the one base they grew on.

    Weights count as float16 holds them, so a base that was saved so and loaded is the same, on any
    device. Adapters that the model has already do not count.
    """
    config = vars(unwrap(model).config).items()
    usual = {field.name: field.default for field in fields(unwrap(model).config)}
    told = {n: str(value) for n, value in config if n not in FOR_TRAINING and value != usual[n]}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    adapters = {f"{name}.{part}" for name in lora_layers(model) for part in ("A", "B", "scale")}
    state = {plain_name(name): tensor for name, tensor in unwrap(model).state_dict().items()}
    for name in sorted(state.keys() - adapters, key=lambda name: name.replace(".base.", ".")):
        tensor = state[name].detach().cpu()
        tensor = tensor.half() if tensor.is_floating_point() else tensor
        digest.update(name.replace(".base.", ".").encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def save_adapters(path: str | Path, model: GPT) -> None:
    """Write every A and B to one safetensors file, with alpha, rank and the base's fingerprint.

    Raises ValueError when the model has no adapters, or more than such a file holds: other weights
    that are trained along, or adapters of several ranks.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no adapters to save: add_lora first, and do not merge before")
    ours = {id(parameter) for parameter in lora_parameters(model)}
    trained = [plain_name(n) for n, p in model.named_parameters() if p.requires_grad and id(p) not in ours]
    if trained:
        raise ValueError(
            f"{trained[0]} ({len(trained)} such) is trained along and has no place in a file of adapters: "
            "merge_lora and save_model, or freeze it if it did not change"
        )
    kinds = {(len(layer.A), layer.scale.item()) for layer in layers.values()}
    if len(kinds) > 1:
        raise ValueError(f"adapters of several (rank, alpha / rank), {sorted(kinds)}: a file holds one kind")
    [(rank, scale)] = kinds
    metadata = {"rank": str(rank), "alpha": repr(scale * rank), "fingerprint": fingerprint(model)}
    tensors = {f"{n}.{part}": getattr(m, part).detach() for n, m in layers.items() for part in "AB"}
    with atomic_write(path) as temporary:
        save_file({name: t.cpu().clone().contiguous() for name, t in tensors.items()}, temporary, metadata)


def load_adapters(path: str | Path, model: GPT) -> GPT:
    """Give a fresh `model` the adapters of a file, in place, and return it.

    Raises FileNotFoundError, or ValueError when the file holds no adapters, or those of another
    base (other shapes, another vocabulary, other weights); the model then stays as it was.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no adapters at {path}: save_adapters writes them")
    _refuse_adapters(model)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        metadata = {}
    if {"rank", "alpha", "base"} <= metadata.keys():
        raise ValueError(
            f"{path} was written by a version that looked at the embedding only, so its base cannot be "
            "known: load it there, merge_lora and save_model; or train it again"
        )
    if not {"rank", "alpha", "fingerprint"} <= metadata.keys():
        raise ValueError(f"{path} holds no adapters of save_adapters: no rank, alpha and fingerprint")
    if metadata["fingerprint"] != fingerprint(model):
        raise ValueError(
            f"{path} belongs to another base model (fingerprint {metadata['fingerprint']}, this one has "
            f"{fingerprint(model)}): load the checkpoint and tokenizer that the adapters were trained on"
        )
    rank, layers = int(metadata["rank"]), _adaptable(model)
    wanted = {}
    for name in sorted({name.rpartition(".")[0] for name in tensors} & layers.keys()):
        wanted[f"{name}.A"] = (rank, layers[name].in_features)
        wanted[f"{name}.B"] = (layers[name].out_features, rank)
    if not wanted or wanted != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise ValueError(f"{path} is damaged: it should hold an A and a B of rank {rank} for each layer")
    add_lora(model, rank, float(metadata["alpha"]), sorted({name[:-2] for name in wanted}))
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            layer.A.copy_(tensors[f"{name}.A"])
            layer.B.copy_(tensors[f"{name}.B"])
    return model
