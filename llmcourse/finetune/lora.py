"""LoRA: leave the weights alone and train a small correction beside each of them.

Dimensions: r rank; a weight is (out, in), A is (r, in), B is (out, r).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llmcourse.model import GPT
from llmcourse.runtime import atomic_write

TARGETS = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")  # every matrix of a block


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained correction: y = x Wᵀ + b + (alpha / r) x Aᵀ Bᵀ.

    A begins random and B at zero, so at first nothing changes. `base` has `in_features`,
    `out_features` and `weight`: a Linear, or one with a quantized weight.
    Raises ValueError unless 1 <= rank <= min(in_features, out_features).

    >>> layer = LoRALinear(nn.Linear(6, 4), rank=2)
    >>> sorted(name for name, p in layer.named_parameters() if p.requires_grad)
    ['A', 'B']

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float = 16.0):
        super().__init__()
        widest = min(base.in_features, base.out_features)
        if not 1 <= rank <= widest:
            raise ValueError(
                f"rank={rank}: a matrix of {base.out_features} x {base.in_features} has ranks 1 to {widest}"
            )
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        device = next(iter((*base.parameters(), *base.buffers()))).device
        self.A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as in nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one ordinary layer with the weight W + (alpha / r) B A."""
        bias = getattr(self.base, "bias", None)
        linear = nn.Linear(self.base.in_features, self.base.out_features, bias is not None)
        linear.weight = nn.Parameter(self.base.weight + self.scale * self.B @ self.A)
        if bias is not None:
            linear.bias = nn.Parameter(bias.clone())
        return linear


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers of `model` by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def add_lora(model: GPT, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] = TARGETS) -> GPT:
    """Freeze `model` and put a correction beside every layer whose name ends in one of `targets`.

    Works in place and returns the model. Raises ValueError when no layer matches, when the model
    has adapters already, or for a rank that a layer cannot have; then the model stays as it was.
    """
    if lora_layers(model):
        raise ValueError("the model has adapters already: merge_lora first, or take a fresh copy")
    wanted = {n: m for n, m in model.named_modules() if n.endswith(tuple(targets)) and hasattr(m, "weight")}
    if not wanted:
        raise ValueError(f"targets={tuple(targets)} match no layer: the usual ones are {TARGETS}")
    adapted = {name: LoRALinear(module, rank, alpha) for name, module in wanted.items()}
    model.requires_grad_(False)
    for name, layer in adapted.items():
        _replace(model, name, layer)
    return model


def lora_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield every A and B: what an optimizer is given, and what a file of adapters holds."""
    for layer in lora_layers(model).values():
        yield from (layer.A, layer.B)


def merge_lora(model: GPT) -> GPT:
    """Add every correction to its weight, in place: the same outputs, no extra time, no adapters."""
    for name, layer in lora_layers(model).items():
        _replace(model, name, layer.merged())
    return model.requires_grad_(True)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the shapes and of the embedding: adapters fit the one base they grew on."""
    config = json.dumps({name: str(value) for name, value in vars(model.config).items()}, sort_keys=True)
    embedding = model.token_embedding.weight.detach().cpu().half().numpy().tobytes()
    return hashlib.sha256(config.encode() + embedding).hexdigest()[:16]


def save_adapters(path: str | Path, model: GPT) -> None:
    """Write every A and B to one safetensors file, with alpha, rank and the base's fingerprint.

    Raises ValueError when the model has no adapters.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no adapters to save: add_lora first, and do not merge before")
    tensors = {f"{n}.{part}": getattr(m, part).detach().cpu() for n, m in layers.items() for part in "AB"}
    first = next(iter(layers.values()))
    metadata = {
        "rank": str(first.A.shape[0]),
        "alpha": repr(first.scale * first.A.shape[0]),
        "base": fingerprint(model),
    }
    with atomic_write(path) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, metadata)


def load_adapters(path: str | Path, model: GPT) -> GPT:
    """Give a fresh `model` the adapters of a file, in place, and return it.

    Raises FileNotFoundError, or ValueError when the file holds no adapters, or those of another
    base (other shapes, another vocabulary, other weights); the model then stays as it was.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no adapters at {path}: save_adapters writes them")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        metadata = {}
    if not {"rank", "alpha", "base"} <= metadata.keys():
        raise ValueError(f"{path} holds no adapters of save_adapters: it has no rank, alpha and base")
    if metadata["base"] != fingerprint(model):
        raise ValueError(
            f"{path} belongs to another base model (fingerprint {metadata['base']}, this one has "
            f"{fingerprint(model)}): load the checkpoint and tokenizer that the adapters were trained on"
        )
    names = sorted({name.rpartition(".")[0] for name in tensors})
    add_lora(model, int(metadata["rank"]), float(metadata["alpha"]), targets=names)
    with torch.no_grad():
        for name, layer in lora_layers(model).items():
            layer.A.copy_(tensors[f"{name}.A"])
            layer.B.copy_(tensors[f"{name}.B"])
    return model
