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
from llmcourse.weights import unwrap


def save_sparse(path: str | Path, model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights of `model`, of the prunable ones only those that are not 0, and a bit for each.

    A weight of 16 bits of which a share s is 0 takes 16 (1 - s) + 1 bits: below 1/16 the bits cost more
    than they save. Two of four is 9 bits, the same as two values and two indices of 2 bits each.
    """
    parameters = dict(unwrap(model).named_parameters())  # a tied output counts once
    sparse, state = prunable(model), {}
    for name, weight in ((name, p.detach().to("cpu", dtype)) for name, p in parameters.items()):
        if name not in sparse:
            state[name] = weight.contiguous()
            continue
        kept = weight != 0
        state[f"{name}.values"] = weight[kept]
        state[f"{name}.bits"] = pack_mask(kept)
    with atomic_write(path) as temporary:
        save_file(state, temporary)


def read_sparse(path: str | Path, model: nn.Module) -> nn.Module:
    """Put what `save_sparse` wrote into `model`, in place, and return it. Raises ValueError for another shape."""
    state = load_file(path)
    with torch.no_grad():
        for name, parameter in unwrap(model).named_parameters():
            if name in state:
                parameter.copy_(state[name])
                continue
            kept = unpack_mask(state[f"{name}.bits"], parameter.shape)
            parameter.zero_()[kept] = state[f"{name}.values"].to(parameter)
    return model


def pack_mask(mask: Tensor) -> Tensor:
    """Return the mask in uint8, eight to a byte; the last byte is filled up with 0.

    >>> pack_mask(torch.tensor([True, False, True])).tolist()
    [5]
    """
    bits = torch.zeros(-(-mask.numel() // 8) * 8, dtype=torch.uint8)
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
