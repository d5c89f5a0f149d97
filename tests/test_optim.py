"""AdamW against torch's, and which parameters decay."""

import io

import pytest
import torch
from torch import nn

from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import AdamW, parameter_groups

GROUPS = [
    dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
    dict(lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    dict(lr=0.1, betas=(0.0, 0.5), eps=1e-3, weight_decay=0.5),
]


def make_parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (5,), (2, 2, 2)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]


def set_gradients(parameters, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def with_groups(parameters):
    return [dict(params=[p]) | options for p, options in zip(parameters, GROUPS, strict=True)]


def test_fifty_steps_equal_torch():
    ours, theirs = make_parameters(), make_parameters()
    our_optimizer, their_optimizer = AdamW(with_groups(ours)), torch.optim.AdamW(with_groups(theirs))
    for step in range(50):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        our_optimizer.step()
        their_optimizer.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(ours, make_parameters(), strict=True))


def test_the_defaults_are_those_of_torch():
    assert AdamW(make_parameters()).defaults.items() <= torch.optim.AdamW(make_parameters()).defaults.items()


def test_a_parameter_without_gradient_waits_and_counts_its_own_steps():
    ours, theirs = make_parameters(), make_parameters()
    our_optimizer, their_optimizer = AdamW(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    before = ours[1].detach().clone()
    for step in range(10):
        for parameters in (ours, theirs):
            set_gradients(parameters, step)
            if step < 5:
                parameters[1].grad = None
        our_optimizer.step()
        their_optimizer.step()
        if step == 4:
            assert torch.equal(ours[1], before)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_first_step_has_the_length_of_the_learning_rate_whatever_the_gradient(size):
    w = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    w.grad = torch.tensor([size, -size], dtype=torch.float64)
    AdamW([w], lr=0.01, eps=0.0, weight_decay=0.0).step()
    expected = torch.tensor([1.99, -0.99], dtype=torch.float64)
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=1e-12)


def test_decay_is_apart_from_the_gradient():
    w = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = AdamW([w], lr=0.1, weight_decay=0.5)
    for step in range(1, 4):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        assert abs(w.item() - 2.0 * 0.95**step) < 1e-12


def test_a_saved_and_loaded_optimizer_continues_bit_for_bit():
    whole, first = make_parameters(), make_parameters()
    whole_optimizer, first_optimizer = AdamW(with_groups(whole)), AdamW(with_groups(first))
    for step in range(20):
        for parameters, optimizer in ((whole, whole_optimizer), (first, first_optimizer)):
            set_gradients(parameters, step)
            optimizer.step()
    file = io.BytesIO()
    torch.save({"weights": first, "optimizer": first_optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = make_parameters(seed=9)
    resumed_optimizer = AdamW([dict(params=[p]) for p in resumed], lr=0.5)
    with torch.no_grad():
        for p, value in zip(resumed, saved["weights"], strict=True):
            p.copy_(value)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    for step in range(20, 40):
        for parameters, optimizer in ((whole, whole_optimizer), (resumed, resumed_optimizer)):
            set_gradients(parameters, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("preset", [ModelConfig.transformer_2017, ModelConfig.gpt2, ModelConfig.llama])
def test_matrices_decay_and_every_parameter_is_in_one_group_once(preset, tied):
    model = GPT(preset(11, d_model=16, n_layers=2, qk_norm=True, tied_embeddings=tied))
    decayed, kept = parameter_groups(model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    ids = [id(p) for p in decayed["params"] + kept["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}
    names = {id(p): name for name, p in model.named_parameters()}
    for p in kept["params"]:
        assert "norm" in names[id(p)] or names[id(p)].endswith("bias")
    for p in decayed["params"]:
        assert "norm" not in names[id(p)]
        assert names[id(p)].endswith("weight")
    assert sum(p.numel() for p in decayed["params"] + kept["params"]) == model.n_parameters()


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 3)
    layer.weight.requires_grad_(False)
    decayed, kept = parameter_groups(layer, 0.1)
    assert decayed["params"] == []
    assert kept["params"][0] is layer.bias


def test_groups_reach_the_optimizer():
    layer = nn.Linear(2, 3).double()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = AdamW(parameter_groups(layer, 0.5), lr=0.1)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), 0.95 * weight, rtol=0, atol=1e-12)
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay"])
def test_negative_values_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name}=-0.5: must not be negative"):
        AdamW(make_parameters(), **{name: -0.5})


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, 1.5)])
def test_betas_outside_their_range_are_refused(betas):
    with pytest.raises(ValueError, match=r"betas=\(.*\): each must be in \[0, 1\), for example"):
        AdamW(make_parameters(), betas=betas)
