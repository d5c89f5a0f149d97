"""Weights on their way to a file and back: the same model, or a sentence that says why not."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of `torch.compile` and of training on several GPUs.

    A wrapper calls the module and has the same weights, under other names: "_orig_mod." or "module."
    stands before each. What is saved from the inner module loads with and without a wrapper. A module
    without a wrapper comes back as it is.

    >>> import torch
    >>> layer = nn.Linear(2, 2)
    >>> compiled = torch.compile(layer, backend="eager")
    >>> list(compiled.state_dict()), list(unwrap(compiled).state_dict())
    (['_orig_mod.weight', '_orig_mod.bias'], ['weight', 'bias'])
    >>> unwrap(layer) is layer
    True
    """
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        else:
            return module
