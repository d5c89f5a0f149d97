"""Tuning: closed forms, invariances, and bad input."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse.data.batches import IGNORE
from llmcourse.losses import mean_loss
from llmcourse.model import ModelConfig
from llmcourse.training import train
from llmcourse.tune import lr_range as tuning
from llmcourse.tune.initialization import activation_and_gradient_norms, initialize
from llmcourse.tune.lr_range import Sweep, lr_range_test
from llmcourse.tune.noise_scale import measure_noise_scale, noise_scale
from llmcourse.tune.techniques import make_config, make_model

CONFIG = ModelConfig(vocab_size=11, context_length=8, d_model=16, n_heads=2, n_layers=2)


def model(seed=0, **changes):
    torch.manual_seed(seed)
    return make_model(make_config(**{**CONFIG.__dict__, **changes}))


def batch(rows=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(11, (rows, 9), generator=generator)
    return ids[:, :-1].clone(), ids[:, 1:].clone()


def plain_loss(net, inputs, targets):
    return F.cross_entropy(net(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


# ---- sweep ----------------------------------------------------------------------------------


def test_a_sweep_rises_by_one_factor_and_leaves_the_model_alone():
    net, data = model(), [batch()]
    before = [p.clone() for p in net.parameters()]
    sweep = lr_range_test(net, data, low=1e-4, high=1e-2, steps=5)
    assert np.allclose(sweep.rates, np.geomspace(1e-4, 1e-2, 5))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_a_sweep_is_a_run_of_train_with_that_schedule():
    data = [batch()]
    sweep = lr_range_test(model(), data, low=1e-4, high=1e-2, steps=5, weight_decay=0.3)
    schedule = lambda step: 100 ** (step / 4)  # noqa: E731
    again = [s.loss for s in train(model(), data, steps=5, lr=1e-4, schedule=schedule, weight_decay=0.3)]
    assert np.allclose(sweep.losses, again, rtol=1e-5)


def test_a_sweep_ends_where_the_loss_explodes_or_is_not_finite():
    steps = 60
    assert len(lr_range_test(model(), [batch()], low=1e-3, high=1e3, steps=steps, stop=1.5).rates) < steps
    net = model()
    with torch.no_grad():
        net.unembedding.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        lr_range_test(net, [batch()], steps=steps)


def test_a_sweep_that_breaks_late_keeps_what_it_has(monkeypatch):
    def breaks(*_, **__):
        for lr, loss in ((1e-3, 4.0), (1e-2, 3.0), (1e-1, 2.0)):
            yield type("Step", (), {"lr": lr, "loss": loss})
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(tuning, "train", breaks)
    assert lr_range_test(model(), [], steps=10) == Sweep((1e-3, 1e-2, 1e-1), (4.0, 3.0, 2.0))


def test_readings_of_a_curve_whose_shape_is_known():
    rates = np.geomspace(1e-5, 1, 501)
    x = np.log10(rates)
    losses = 4 - 2 / (1 + np.exp(-6 * (x + 3))) + 8 / (1 + np.exp(-6 * (x + 0.5)))
    sweep = Sweep(tuple(rates), tuple(losses))
    # the mean looks back over about half a decade, so readings come a little late: never early
    assert 1e-3 <= sweep.steepest() < 3e-3
    assert 1e-2 < sweep.lowest() < 1e-1
    assert np.allclose(Sweep(tuple(rates), (2.0,) * 501).smoothed(), 2.0)


def test_smoothing_is_over_rates_and_not_over_steps():
    def readings(steps):
        rates = np.geomspace(1e-5, 1, steps)
        sweep = Sweep(tuple(rates), tuple((np.log10(rates) + 2) ** 2))
        return sweep.lowest()

    assert readings(101) == pytest.approx(readings(1001), rel=0.2)


@pytest.mark.parametrize("bad", [dict(low=0), dict(low=1.0, high=0.1), dict(steps=2), dict(low=-1)])
def test_a_sweep_refuses_what_cannot_rise(bad):
    with pytest.raises(ValueError, match="give 0 < low < high and at least 3 steps"):
        lr_range_test(model(), [batch()], **bad)


# ---- noise scale ----------------------------------------------------------------------------


@pytest.mark.parametrize(("small", "large"), [(1, 2), (4, 256), (3, 7)])
def test_the_two_equations_are_solved(small, large):
    found = noise_scale(5 + 30 / small, 5 + 30 / large, small, large)
    assert found.gradient_square == pytest.approx(5)
    assert found.noise_trace == pytest.approx(30)
    assert found.scale == pytest.approx(6)


def test_a_gradient_lost_in_noise_has_an_infinite_scale():
    assert noise_scale(10.0, 1.0, 1, 2).scale == math.inf


@pytest.mark.parametrize(("small", "large"), [(0, 2), (2, 2), (3, 2)])
def test_batch_sizes_must_differ(small, large):
    with pytest.raises(ValueError, match=f"small={small} and large={large}: give 1 <= small < large"):
        noise_scale(1.0, 1.0, small, large)


class Point(nn.Module):
    """A quadratic bowl: the gradient of one example x is A (w - x)."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return self.w - x


def test_noise_scale_of_a_quadratic_with_known_covariance():
    """loss = (w - x)ᵀ A (w - x) / 2 with x ~ N(0, diag(s²)): G = A w, tr Σ = Σ aᵢ² sᵢ²."""
    a, s, w = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 1.0, 2.0]), torch.tensor([2.0, -1.0, 1.0])
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * s
    loss = lambda net, batch: ((a * net(batch[0]).square()).sum() / 2, len(batch[0]))  # noqa: E731
    found = measure_noise_scale(Point(w.clone()), (x,), small=4, loss=loss)
    gradient, trace = (a * w).square().sum().item(), (a * s).square().sum().item()
    assert found.gradient_square == pytest.approx(gradient, rel=0.05)
    assert found.noise_trace == pytest.approx(trace, rel=0.05)
    assert found.scale == pytest.approx(trace / gradient, rel=0.1)


def test_both_estimates_are_unbiased():
    """On batches far too small for one answer, the mean over 400 of them is right."""
    a, w = torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.1])
    generator = torch.Generator().manual_seed(1)
    loss = lambda net, batch: ((a * net(batch[0]).square()).sum() / 2, len(batch[0]))  # noqa: E731
    found = []
    for _ in range(400):
        x = torch.randn(8, 2, generator=generator)
        found.append(measure_noise_scale(Point(w.clone()), (x,), small=1, loss=loss))
    assert any(f.gradient_square < 0 for f in found), "the point of averaging first"
    squares = np.array([f.gradient_square for f in found])
    traces = np.array([f.noise_trace for f in found])
    assert abs(squares.mean() - 0.13) < 4 * squares.std() / 20
    assert abs(traces.mean() - 5.0) < 4 * traces.std() / 20


def test_examples_without_noise_have_scale_zero_and_gradients_stay_untouched():
    net = model()
    found = measure_noise_scale(net, [part.expand(8, -1) for part in batch(1)], small=2)
    assert found.scale == pytest.approx(0, abs=1e-4)
    assert all(p.grad is None for p in net.parameters())


def test_the_large_gradient_is_that_of_the_whole_batch():
    net, (inputs, targets) = model(), batch(6)
    found = measure_noise_scale(net, (inputs, targets), small=2)
    plain_loss(net, inputs, targets).backward()
    whole = sum(p.grad.square().sum().item() for p in net.parameters())
    assert found.gradient_square + found.noise_trace / 6 == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(("rows", "small"), [(6, 4), (4, 4), (4, 8)])
def test_a_batch_must_fall_into_parts(rows, small):
    with pytest.raises(ValueError, match=f"{rows} examples are not 2 or more parts of {small}"):
        measure_noise_scale(model(), batch(rows), small=small)


def test_the_mean_loss_is_torchs_and_does_not_count_ignored_targets():
    inputs, targets = batch(2)
    targets[1, 2:] = IGNORE
    net = model()
    assert mean_loss(net, (inputs, targets)).item() == pytest.approx(plain_loss(net, inputs, targets).item())


# ---- the start ------------------------------------------------------------------------------


def test_initialize_draws_the_deviations_that_it_promises():
    net = initialize(model(d_model=64, n_layers=8), std=0.1)
    for name, parameter in net.named_parameters():
        if parameter.dim() >= 2:
            writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
            assert parameter.std().item() == pytest.approx(0.1 / 4 if writes else 0.1, rel=0.1), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
    flat = initialize(model(d_model=64), std=0.1, residual_scaling=False)
    assert flat.blocks[0].mlp.down.weight.std().item() == pytest.approx(0.1, rel=0.1)


def test_initialize_agrees_with_the_start_of_the_model_itself():
    net = model(d_model=64, n_layers=8, bias=True, norm="layer")
    own = {name: p.std().item() for name, p in net.named_parameters() if p.numel() > 1}
    for name, parameter in initialize(net).named_parameters():
        if parameter.numel() > 1:
            assert parameter.std().item() == pytest.approx(own[name], rel=0.15, abs=1e-9), name


def test_initialize_keeps_ties_and_zeros():
    net = initialize(model(zero_init=True), std=0.1)
    assert net.unembedding.weight is net.token_embedding.weight
    assert net.blocks[0].mlp.down.weight.abs().max() == 0
    assert net.blocks[0].mlp.up.weight.abs().max() > 0


def test_initialize_draws_the_same_in_a_compiled_model():
    plain, inside = (model(bigram_table=True) for _ in range(2))
    torch.manual_seed(0)
    initialize(plain)
    torch.manual_seed(0)
    initialize(torch.compile(inside, backend="eager"))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), inside.parameters(), strict=True))


@pytest.mark.parametrize("std", [0, -0.1])
def test_initialize_refuses_a_deviation_that_is_none(std):
    with pytest.raises(ValueError, match=re.escape(f"std={std}: must be above 0")):
        initialize(model(), std)


def test_layer_spread_agrees_with_autograd_and_leaves_no_trace():
    net, (inputs, targets) = model(), batch()
    spreads, norms = activation_and_gradient_norms(net, (inputs, targets))
    assert len(spreads) == len(norms) == 2
    assert not any(block._forward_hooks for block in net.blocks)
    assert all(p.grad is None for p in net.parameters())
    x, rotary = net.embed(inputs)
    plain_loss(net, inputs, targets).backward()
    for block, spread, norm in zip(net.blocks, spreads, norms, strict=True):
        x = block(x, rotary=rotary)
        assert spread == pytest.approx(x.std().item(), rel=1e-5)
        expected = math.sqrt(sum(p.grad.square().sum().item() for p in block.parameters()))
        assert norm == pytest.approx(expected, rel=1e-4)


def test_residual_scaling_keeps_a_deep_stream_where_it_was():
    """Unscaled, Var grows by 2L v; scaled by v: the ratio of what is added is 2L."""
    inputs, targets = batch(8)
    added = {}
    for scaled in (False, True):
        net = initialize(model(d_model=64, n_layers=12), 0.125, scaled)
        spreads, _ = activation_and_gradient_norms(net, (inputs, targets))
        added[scaled] = spreads[-1] ** 2 - 0.125**2
    assert added[False] / added[True] == pytest.approx(24, rel=0.5)
    post = initialize(model(d_model=64, n_layers=12, norm_position="post"), 0.125, False)
    assert np.allclose(activation_and_gradient_norms(post, (inputs, targets))[0], 1, atol=0.05)
