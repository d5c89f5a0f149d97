"""A pruned model in a file: the weights that are left, and a bit for each that says whether it is.

The plain file of a pruned model is as large as before: a 0 takes 16 bits too.
"""

import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from llmcourse.compress.prune import prunable
from llmcourse.support.files import atomic_write
from llmcourse.weights import load_state, rounded, unwrap


def save_sparse(path: str | Path, model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights of `model`, of the prunable ones only those that are not 0, and a bit for each.

    A weight of 16 bits of which a share s is 0 takes 16 (1 - s) + 1 bits: below 1/16 the bits cost more
    than they save. Two of four is 9 bits, the same as two values and two indices of 2 bits each. Raises
    ValueError for weights that `dtype` cannot hold.
    """
    parameters = dict(unwrap(model).named_parameters())  # a tied output counts once
    sparse, state = prunable(model), {}
    for name, weight in ((name, rounded(name, p, dtype)) for name, p in parameters.items()):
        if name not in sparse:
            state[name] = weight
            continue
        kept = weight != 0
        state[f"{name}.values"] = weight[kept]
        state[f"{name}.bits"] = pack_mask(kept)
    with atomic_write(path) as temporary:
        save_file(state, temporary)


def load_sparse(path: str | Path, model: nn.Module) -> nn.Module:
    """Put what `save_sparse` wrote into `model`, in place, and return it.

    Raises ValueError for the file of a model of another shape; then the model is as it was.
    """
    stored, state = load_file(path), {}
    for name, parameter in unwrap(model).named_parameters():
        if (bits := stored.pop(f"{name}.bits", None)) is None:
            continue
        values = stored.pop(f"{name}.values")
        if len(bits) != n_bytes(parameter) or len(values) != int(unpack_mask(bits, parameter.shape).sum()):
            raise ValueError(
                f"{path} does not fit the model: the bits of {name} are not for {tuple(parameter.shape)}; build "
                "the model as it was when it was saved"
            )
        state[name] = torch.zeros(parameter.shape, dtype=values.dtype)
        state[name][unpack_mask(bits, parameter.shape)] = values
    if unwrap(model).config.tied_embeddings and "token_embedding.weight" in stored:
        stored.setdefault("unembedding.weight", stored["token_embedding.weight"])
    load_state(model, state | stored, path)
    return model


def n_bytes(tensor: Tensor) -> int:
    """Return how many bytes hold a bit for each entry."""
    return -(-tensor.numel() // 8)


def pack_mask(mask: Tensor) -> Tensor:
    """Return the mask in uint8, eight to a byte; the last byte is filled up with 0.

    >>> pack_mask(torch.tensor([True, False, True])).tolist()
    [5]
    """
    bits = torch.zeros(n_bytes(mask) * 8, dtype=torch.uint8)
    bits[: mask.numel()] = mask.flatten()
    places = torch.arange(8, dtype=torch.uint8)
    return (bits.view(-1, 8) << places).sum(1, dtype=torch.uint8)


def unpack_mask(packed: Tensor, shape: torch.Size) -> Tensor:
    """Undo `pack_mask`."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: shape.numel()].view(shape).bool()


def file_sizes(model: nn.Module, folder: str | Path) -> dict[str, int]:
    """Return the bytes of `model` in float16: stored plainly, the same after zlib, and as values and bits.

    The plain file is as large as before pruning: a 0 takes 16 bits too.
    """
    plain = {name: p.detach().to("cpu", torch.float16) for name, p in unwrap(model).named_parameters()}
    content = save(plain)
    save_sparse(Path(folder) / "sparse.safetensors", model)
    sparse = (Path(folder) / "sparse.safetensors").stat().st_size
    return {"plain": len(content), "zlib": len(zlib.compress(content, 9)), "sparse": sparse}
