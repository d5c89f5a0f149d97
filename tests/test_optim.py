"""AdamW against torch's, and which parameters decay."""

import io

import pytest
import torch
from torch import nn

from llmcourse.finetune.lora import TARGETS, add_lora
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import (
    AdamW,
    Muon,
    OptimizerList,
    is_hidden_matrix,
    muon_and_adamw,
    orthogonalize,
    parameter_groups,
)
from llmcourse.tune.techniques import make_config, make_model

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
@pytest.mark.parametrize("value", [-0.5, float("nan")])
def test_negative_values_and_nan_are_refused_by_name_as_by_torch(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must not be negative"):
        AdamW(make_parameters(), **{name: value})
    with pytest.raises(ValueError, match="Invalid"):
        torch.optim.AdamW(make_parameters(), **{name: value})


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, 1.5)])
def test_betas_outside_their_range_are_refused(betas):
    with pytest.raises(ValueError, match=r"betas=\(.*\): each must be in \[0, 1\), for example"):
        AdamW(make_parameters(), betas=betas)


# --- Muon ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (16, 48), (48, 16), (3, 5, 7)])
def test_orthogonalize_keeps_the_singular_vectors_and_brings_the_values_near_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    result = orthogonalize(matrices)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ result @ vh.mT  # diagonal when the vectors are kept
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1)), rtol=0, atol=1e-10)
    large = s > 0.05 * s.norm(dim=-1, keepdim=True)
    values = inner.diagonal(dim1=-2, dim2=-1)[large]
    assert values.min() > 0.65
    assert values.max() < 1.25


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalize_applies_its_polynomial_to_the_singular_values(steps):
    matrices = torch.randn(6, 9, dtype=torch.float64)
    values = torch.linalg.svdvals(matrices)
    expected = values / values.norm()
    for _ in range(steps):
        expected = 3.4445 * expected - 4.775 * expected**3 + 2.0315 * expected**5
    found = torch.linalg.svdvals(orthogonalize(matrices, steps))
    torch.testing.assert_close(found, expected.abs().sort(descending=True).values, rtol=0, atol=1e-10)


def test_orthogonalize_ignores_the_size_and_turns_with_its_input():
    matrices = torch.randn(4, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    torch.testing.assert_close(orthogonalize(1e-3 * matrices), orthogonalize(matrices))
    torch.testing.assert_close(orthogonalize(turn @ matrices), turn @ orthogonalize(matrices))
    assert orthogonalize(torch.zeros(2, 2)).isfinite().all()
    with pytest.raises(ValueError, match="only matrices"):
        orthogonalize(torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 12), (8, 24), (24, 8)])
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch older than 2.9")
def test_twenty_steps_of_muon_equal_torch_up_to_its_bfloat16(shape, dtype):
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = dict(lr=0.02, momentum=0.9, weight_decay=0.1)
    pairs = (ours, Muon([ours], **options, dtype=dtype)), (theirs, torch.optim.Muon([theirs], **options))
    for step in range(20):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        for parameter, optimizer in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    limit = 0.02 if dtype == torch.float32 else 0.002  # bfloat16 keeps 8 bits; both in it agree better
    assert (ours - theirs).norm() < limit * moved


def test_muon_handles_equal_shapes_together_as_it_would_apart():
    torch.manual_seed(0)
    shapes = (4, 6), (6, 4), (4, 6), (5, 5)
    starts, gradients = ([torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(2))
    together = [nn.Parameter(start.clone()) for start in starts]
    for p, gradient in zip(together, gradients, strict=True):
        p.grad = gradient
    Muon(together).step()
    for start, gradient, p in zip(starts, gradients, together, strict=True):
        alone = nn.Parameter(start.clone())
        alone.grad = gradient
        Muon([alone]).step()
        torch.testing.assert_close(alone, p, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lr=-1.0), "lr=-1.0: must not be negative"),
        (dict(weight_decay=-0.1), "weight_decay=-0.1"),
        (dict(lr=float("nan")), "lr=nan"),
        (dict(momentum=1.0), r"momentum=1.0: must be in \[0, 1\)"),
    ],
)
def test_bad_options_of_muon_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(torch.zeros(2, 2))], **options)


def test_muon_refuses_a_vector():
    with pytest.raises(ValueError, match=r"shape \(3,\) is no matrix: give it to AdamW"):
        Muon([nn.Parameter(torch.zeros(3))])


def test_every_parameter_is_in_exactly_one_group_and_muon_has_the_matrices_of_the_blocks():
    model = make_model(
        make_config(11, d_model=16, value_embeddings=True, token_shift=True, embedding_shift=1)
    )
    optimizer = muon_and_adamw(model)
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    inside = {id(p) for p in optimizer.optimizers[0].param_groups[0]["params"]}
    names = {name.split(".", 2)[2] for name, p in model.named_parameters() if id(p) in inside}
    assert names == {"attention.qkv.weight", "attention.out.weight", "mlp.up.weight", "mlp.down.weight"}
    assert is_hidden_matrix("blocks.0.mlp.up.weight", torch.zeros(2, 2))
    assert is_hidden_matrix("encoder.blocks.0.mlp.up.weight", torch.zeros(2, 2))


@pytest.mark.parametrize("targets", [TARGETS, ("unembedding",), (*TARGETS, "unembedding")])
def test_every_adapter_is_in_exactly_one_group_too(targets):
    model = add_lora(GPT(ModelConfig(11, d_model=16)), 2, targets=targets)
    found = [id(p) for group in muon_and_adamw(model).param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_optimizers_together_do_what_each_does_alone_and_resume():
    a, b = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    c, d = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    pair, alone = OptimizerList(Muon([a]), AdamW([b])), (Muon([c]), AdamW([d]))
    for p in (a, b, c, d):
        p.grad = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    pair.step()
    for optimizer in alone:
        optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    again = OptimizerList(Muon([a]), AdamW([b]))
    again.load_state_dict(pair.state_dict())
    again.step()
    for optimizer in alone:
        optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    with pytest.raises(ValueError, match="argument"):
        OptimizerList(Muon([a])).load_state_dict(pair.state_dict())
