"""Attention and the optimizer against torch's own."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import Result, alternate, per_call
from llmcourse.attention import MultiHeadAttention, scaled_dot_product_attention
from llmcourse.optim import AdamW, parameter_groups
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


def copy_with_gradients(model: nn.Module) -> nn.Module:
    """Return a copy of `model`; deepcopy alone would drop the gradients."""
    twin = copy.deepcopy(model)
    for parameter, original in zip(twin.parameters(), model.parameters(), strict=True):
        parameter.grad = original.grad.clone()
    return twin
