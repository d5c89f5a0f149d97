"""Weights on their way to a file and back: the same model, or a sentence that says why not."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.overrides import TorchFunctionMode

from llmcourse.packed_model import are_tied, make_room, packed_schemes

FOR_TRAINING = ("training", "p", "dropout", "inplace")  # fields that say nothing about a trained model
LOST = 0.01  # a tensor that changes by this share when it is rounded is no longer the same


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


def plain_name(name: str) -> str:
    """Return the name that a part has where nothing is compiled.

    >>> plain_name("blocks.0._orig_mod.mlp.up.weight")
    'blocks.0.mlp.up.weight'
    """
    return name.replace("_orig_mod.", "")


class _NoValues(TorchFunctionMode):
    """Where a model is made for the shapes of its parameters: no memory, and no random numbers drawn."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.empty:
            kwargs["device"] = "meta"
        if function.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _described(model: nn.Module) -> dict:
    """Return the shape of each tensor, and the kind and the plain fields (eps, n_heads) of each part."""
    told = {plain_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules(remove_duplicate=False):
        name, module = plain_name(name), unwrap(module)
        told[f"the kind of {name}"] = type(module).__name__
        for key, value in vars(module).items():
            if isinstance(value, int | float | str | None) and key[0] != "_" and key not in FOR_TRAINING:
                told[f"{name}.{key}"] = value
    return told


def config_and_state(model: nn.Module, packed: bool = False) -> tuple:
    """Return (configuration, state): `GPT(configuration)` with that state is the same model.

    With `packed`, the state may be that of a packed model: so it is after `packed_model.make_room`.

    The configuration says whether the two ends are one tensor now, whatever they were when the model
    was built. Raises ValueError where a configuration cannot say what the model is: adapters that
    are not merged, weights of four bits, parts of another kind, shape or name, other tables of
    positions, another model.
    """
    model = unwrap(model)
    if not hasattr(model, "unembedding"):
        raise ValueError(f"{type(model).__name__} is no GPT of llmcourse: only its weights have a place here")
    state = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    parts = {name.rpartition(".")[2]: name.rpartition(".")[0] for name in reversed(state)}
    if {"A", "B"} <= parts.keys():
        raise ValueError(
            f"{parts['A']} has an adapter: merge_lora makes it part of the weights, save_adapters writes "
            "it to a file of its own"
        )
    if "levels" in parts:
        raise ValueError(
            f"{parts['levels']} has weights of four bits: save_checkpoint keeps them as they are; or save "
            "the model from before quantize_linears, in float32: quantized again, it is the same"
        )
    schemes = packed_schemes(model)
    if schemes and not packed:
        raise ValueError(
            f"{next(iter(schemes))} is packed ({next(iter(schemes.values()))}): save_model keeps it; for "
            "anything else take the model of floats, or unpack_model(model), which has the same numbers"
        )
    with _NoValues():
        fresh = type(model)(model.config)
        make_room(fresh, schemes)
    wanted, found, tables = _described(fresh), _described(model), dict(model.named_buffers())
    kept = fresh.state_dict()
    for name, table in fresh.named_buffers():  # sines and cosines of positions, which no state holds
        if name in kept:
            continue
        mine = tables[name].float().cpu() if name in tables else torch.empty(0)
        if mine.shape != table.shape or not torch.allclose(mine, table, rtol=0, atol=LOST):
            wanted[name], found[name] = "one of its fields", "another table"
    if different := sorted(n for n in wanted.keys() | state.keys() if wanted.get(n) != found.get(n)):
        name = different[0]
        raise ValueError(
            f"{name} is {found.get(name, 'nothing')}, by the configuration {wanted.get(name, 'nothing')} "
            f"({len(different)} such parts): build a model with the configuration that it has now, and give "
            "it these weights"
        )
    return replace(model.config, tied_embeddings=are_tied(model)), state


def rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of `tensor` in `dtype`, on the CPU. Raises ValueError where `dtype` cannot hold it.

    float16 reaches from 6e-8 to 65,504: larger weights would become inf, smaller ones 0.

    >>> rounded("w", torch.tensor([1.0, 70000.0]), torch.float16)
    Traceback (most recent call last):
    ...
    ValueError: w, with values up to 7e+04, does not survive in torch.float16: use torch.float32
    """
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and tensor.is_floating_point()):
        raise ValueError(f"{name} in {tensor.dtype} as {dtype}: weights are kept as floats, as torch.float32")
    before = tensor.detach().cpu()
    after = before.to(dtype, copy=True).contiguous()
    if dtype == before.dtype:
        return after
    fine = torch.isfinite(before)
    change, size = ((x.double() if x.dtype == torch.float64 else x.float())[fine] for x in (after, before))
    change, size = (torch.linalg.vector_norm(x, dtype=torch.float64) for x in (change - size, size))
    if not change <= LOST * size:
        largest = before[fine].abs().max().item()
        raise ValueError(
            f"{name}, with values up to {largest:.2g}, does not survive in {dtype}: use {before.dtype}"
        )
    return after


def load_state(model: nn.Module, state: Mapping[str, Tensor], where) -> None:
    """Load `state` into `model`, all of it or nothing, with or without wrappers on either side.

    Raises ValueError that begins with `where`, a path: for a part that is missing, or that the model
    lacks, for another shape or kind of number, or a number that the model's precision cannot hold.
    """
    model = unwrap(model)
    mine = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    state = {plain_name(name): tensor for name, tensor in state.items()}
    problems = [f"it lacks {name}" for name in mine if name not in state]
    problems += [f"it has {name}, which the model lacks" for name in state if name not in mine]
    for name in (name for name in mine if name in state):
        there, here = state[name], mine[name]
        if not (isinstance(there, Tensor) and isinstance(here, Tensor)):
            continue  # an extra state of its module
        if there.shape != here.shape:
            problems.append(f"{name} is {tuple(there.shape)} there and {tuple(here.shape)} in the model")
        elif there.is_floating_point() != here.is_floating_point():
            problems.append(f"{name} is {there.dtype} there and {here.dtype} in the model")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(
            f"{where} does not fit the model: {'; '.join(problems[:3])}{more}. Build the model as it was "
            "when it was saved: the same configuration, adapters and quantization"
        )
    try:
        for name, there in state.items():
            here = mine[name]
            floats = isinstance(there, Tensor) and isinstance(here, Tensor) and there.is_floating_point()
            if floats and torch.promote_types(there.dtype, here.dtype) != here.dtype:  # narrower here
                rounded(name, there, here.dtype)
        names = {plain_name(name): name for name in model.state_dict()}
        model.load_state_dict({names[name]: tensor for name, tensor in state.items()})
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {error}") from error


def refuse_two_ends(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_) -> None:
    """Before a state is loaded: raise ValueError if it holds two values for what is one tensor.

    torch would load one after the other, and keep the last without a word. A hook for
    `register_load_state_dict_pre_hook`.
    """
    names = {}
    parts = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    for name, part in chain(*parts):
        names.setdefault(id(part), []).append(prefix + name)
    for one, *others in names.values():
        for other in others:
            a, b = state.get(one), state.get(other)
            if a is None or b is None or a is b or a.data_ptr() == b.data_ptr() or a.shape != b.shape:
                continue
            if not torch.allclose(a, b.to(a), rtol=0, atol=0, equal_nan=True):
                raise ValueError(
                    f"{one} and {other} are one tensor in the model, and differ in what is loaded: build "
                    "the model with tied_embeddings=False"
                )
