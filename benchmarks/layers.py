"""Attention and the optimizer against torch's own."""

import copy
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Result, alternate, per_call
from llmcourse.attention import MultiHeadAttention, scaled_dot_product_attention
from llmcourse.fast.cross_entropy import cross_entropy
from llmcourse.optim import AdamW, Muon, hidden_and_other_groups, parameter_groups
from llmcourse.pretrained import load_course_model


def attention(rounds: int) -> Iterator[Result]:
    """Forward and backward, float32, causal: the function that is read, and the layer that is used."""
    q, k, v = (torch.randn(8, 8, 256, 32, requires_grad=True) for _ in range(3))

    def step(function):
        output = function(q, k, v, is_causal=True)
        return torch.autograd.grad(output, (q, k, v), torch.ones_like(output))

    ours, theirs = scaled_dot_product_attention, F.scaled_dot_product_attention
    for mine, other in zip(step(ours), step(theirs), strict=True):
        torch.testing.assert_close(mine, other)
    a, b = per_call(lambda: step(ours), 5), per_call(lambda: step(theirs), 5)
    note = "the price of six readable lines that keep all T x T weights; models use the fused kernel"
    yield Result("attention", "attention function", *alternate(a, b, rounds), note)

    x = torch.randn(8, 256, 256, requires_grad=True)
    layer = MultiHeadAttention(256, 8, bias=True)
    torch_layer = nn.MultiheadAttention(256, 8, batch_first=True)
    weights = [layer.qkv.weight, layer.qkv.bias, layer.out.weight, layer.out.bias]
    names = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    torch_layer.load_state_dict(dict(zip(names, weights, strict=True)))
    mask = nn.Transformer.generate_square_subsequent_mask(256)

    def our_layer():
        return layer(x, is_causal=True)

    def their_layer():
        return torch_layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]

    torch.testing.assert_close(our_layer(), their_layer())
    a = per_call(lambda: our_layer().sum().backward(), 5)
    b = per_call(lambda: their_layer().sum().backward(), 5)
    note = "the same fused kernel below; torch.nn.MultiheadAttention copies more tensors around it"
    yield Result("attention", "attention layer", *alternate(a, b, rounds), note)

    x = torch.randn(20, 64, 128, requires_grad=True)  # the strong recipe of chapter 5c
    layer = MultiHeadAttention(128, 4)
    twin = copy.deepcopy(layer)
    twin.forward = partial(attend_in_bfloat16, twin)

    def train_in_bfloat16(layer):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x, is_causal=True)
        y.float().square().sum().backward()
        return layer.qkv.weight.grad

    gradients = train_in_bfloat16(layer), train_in_bfloat16(twin)
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm(), "the gradients differ"
    a, b = (per_call(partial(train_in_bfloat16, part), 5) for part in (layer, twin))
    note = "the same layer; ours multiplies whole attention matrices, theirs hands bfloat16 to torch's kernel"
    yield Result("attention", "attention layer, in bfloat16", *alternate(a, b, rounds), note)


def attend_in_bfloat16(layer: MultiHeadAttention, x: Tensor, is_causal: bool) -> Tensor:
    """Return what the layer does when it hands bfloat16 to torch's kernel."""
    q, k, v = layer.split_heads(x)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    return layer.out(y.transpose(1, 2).flatten(2))


def loss(rounds: int, shape: tuple[int, int] = (512, 2048), device: str = "cpu") -> Iterator[Result]:
    """The loss of N tokens and its gradient, for V entries, (N, V); as given, those of the course model."""
    logits = torch.randn(shape, device=device, requires_grad=True)
    targets = torch.randint(shape[1], shape[:1], device=device)

    def gradient(function):
        return torch.autograd.grad(function(logits, targets), logits)[0]

    theirs = partial(F.cross_entropy, reduction="sum")
    torch.testing.assert_close(gradient(cross_entropy), gradient(theirs))
    a, b = (per_call(partial(gradient, function), 20) for function in (cross_entropy, theirs))
    note = f"{shape[0]:,} x {shape[1]:,}; ours writes the gradient where the probabilities stood; theirs fills three tables as large"
    yield Result("loss", "cross-entropy", *alternate(a, b, rounds), note)


def optimizer(rounds: int) -> Iterator[Result]:
    """One AdamW step on the parameters of the course model, with gradients that stay."""
    model, _ = load_course_model()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    kinds = {
        "default": ({}, "torch's default on a CPU is a loop like ours, with more options to look at"),
        "foreach": (dict(foreach=True), "theirs handles lists of tensors at once"),
        "fused": (
            dict(fused=True),
            "theirs is one C++ pass over memory; ours eight, one a line of the formula",
        ),
    }
    for kind, (options, note) in kinds.items():
        ours, theirs = copy_with_gradients(model), copy_with_gradients(model)
        mine = AdamW(parameter_groups(ours, 0.1))
        other = torch.optim.AdamW(parameter_groups(theirs, 0.1), **options)
        mine.step(), other.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q)
        a, b = per_call(mine.step, 20), per_call(other.step, 20)
        yield Result("optimizer", f"AdamW step, torch {kind}", *alternate(a, b, rounds), note)
    yield from muon(model, rounds)


def muon(model: nn.Module, rounds: int) -> Iterator[Result]:
    """One step of Muon on the matrices inside the blocks of `model`, which has gradients."""
    if not hasattr(torch.optim, "Muon"):
        return
    ours, theirs = copy_with_gradients(model), copy_with_gradients(model)
    groups = [hidden_and_other_groups(each, 0.1)[0] for each in (ours, theirs)]
    mine, other = Muon(groups[:1], 0.02, dtype=torch.bfloat16), torch.optim.Muon(groups[1:], 0.02)
    mine.step(), other.step()
    for p, q in zip(*(group["params"] for group in groups), strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=1e-4)
    a, b = per_call(mine.step, 10), per_call(other.step, 10)
    note = "both in bfloat16; ours handles matrices of one shape together, theirs one after another"
    yield Result("optimizer", "Muon step", *alternate(a, b, rounds), note)


def copy_with_gradients(model: nn.Module) -> nn.Module:
    """Return a copy of `model`; deepcopy alone would drop the gradients."""
    twin = copy.deepcopy(model)
    for parameter, original in zip(twin.parameters(), model.parameters(), strict=True):
        parameter.grad = original.grad.clone()
    return twin
