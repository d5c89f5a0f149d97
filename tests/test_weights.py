"""Wrappers come off, whatever their order."""

import torch
from torch import nn

from llmcourse.weights import unwrap


def test_wrappers_come_off_in_any_order_and_the_names_with_them():
    """torch names a wrapped module's weights "_orig_mod." and "module."; nanoGPT's loader strips the first."""
    layer = nn.Linear(2, 2)
    compiled = torch.compile(layer, backend="eager")
    parallel = nn.DataParallel(layer)
    for wrapped in (
        layer,
        compiled,
        parallel,
        nn.DataParallel(compiled),
        torch.compile(parallel, backend="eager"),
    ):
        assert unwrap(wrapped) is layer
    assert list(unwrap(compiled).state_dict()) == ["weight", "bias"] != list(compiled.state_dict())


def test_a_part_called_module_is_no_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    holder = Holder()
    assert unwrap(holder) is holder
