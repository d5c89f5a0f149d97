"""muP: at the base nothing changes, elsewhere what training changes is flat; the package mup as judge."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse.config import ModelConfig
from llmcourse.generate import generate
from llmcourse.model import GPT
from llmcourse.optim import is_hidden_matrix
from llmcourse.training import train
from llmcourse.tune.costs import count_parameters, flops_per_token
from llmcourse.tune.mup import (
    MuPConfig,
    MuPGPT,
    coordinate_check,
    to_plain,
    width_groups,
    width_ratio,
    width_slopes,
)

V = 32
BASE = ModelConfig(V, context_length=16, d_model=16, n_heads=2, n_layers=2, d_ff=64)
KINDS = {
    "llama": dict(),
    "untied, biases, LayerNorm": dict(tied_embeddings=False, bias=True, norm="layer", mlp="gelu"),
    "QK-norm, shared heads": dict(qk_norm=True, n_kv_heads=1, positions="learned"),
}
WIDTHS = (32, 64, 128)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def config_of(width, base=BASE, **changes):
    """Heads of a fixed number, so that each grows with the width."""
    return replace(base, d_model=width, d_ff=4 * width, **changes)


def mup_model(width, seed=0, **kind):
    torch.manual_seed(seed)
    base = replace(BASE, **kind)
    return MuPGPT(MuPConfig.of(config_of(width, base), base))


def a_batch(seed=0):
    rows = torch.randint(V, (4, 17), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]


def optimizer_of(model, lr=1e-2, weight_decay=0.1):
    return torch.optim.AdamW(width_groups(model, lr, weight_decay), betas=(0.9, 0.95))


def trained(model, steps=4, seed=0):
    for _ in train(model, [a_batch(seed)], steps=steps, optimizer=optimizer_of(model)):
        pass
    return model


def test_at_the_base_it_is_the_plain_model_and_learns_as_it_does(kind):
    torch.manual_seed(0)
    plain, same = GPT(replace(BASE, **kind)), mup_model(16, **kind)
    for steps in (0, 4):
        if steps:
            trained(plain, steps), trained(same, steps)
        for (name, one), (_, other) in zip(plain.named_parameters(), same.named_parameters(), strict=True):
            assert torch.equal(one, other), name
        assert torch.equal(plain(a_batch()[0]), same(a_batch()[0]))


def test_deviations_at_the_start_are_those_of_table_8(kind):
    small, wide = mup_model(16, **kind), mup_model(256, **kind)
    for (name, one), (_, other) in zip(small.named_parameters(), wide.named_parameters(), strict=True):
        if one.dim() == 2:
            expected = one.detach().std() / (4.0 if is_hidden_matrix(name, one) else 1.0)
            assert other.detach().std().item() == pytest.approx(expected.item(), rel=0.1), name
        else:
            assert one.unique().tolist() == other.unique().tolist() != [], name


def test_scores_are_divided_by_the_width_of_a_head_and_logits_by_the_ratio():
    """A head 4 times as wide, with each number of q and k repeated 4 times, has the same weights."""
    small, wide = mup_model(16), mup_model(64)
    x = torch.randn(1, 5, 16)
    attention, its = small.blocks[0].attention, wide.blocks[0].attention
    assert its.d_head == 4 * attention.d_head
    q, k, _ = attention.split_heads(x)
    with torch.no_grad():
        its.qkv.weight.zero_()
        its.qkv.weight[:, :16] = attention.qkv.weight.repeat_interleave(4, dim=0)
    q4, k4, _ = its.split_heads(nn.functional.pad(x, (0, 48)))
    scores, same = q @ k.mT / small.blocks[0].attention.d_head ** 0.5, q4 @ k4.mT / its.d_head**0.5
    assert torch.allclose(scores, same, atol=1e-6)
    ids = a_batch()[0]
    plain = GPT(config_of(64))
    plain.load_state_dict(wide.state_dict())
    for block in wide.blocks:
        block.attention.query_factor = 1.0
    assert torch.allclose(wide(ids), plain(ids) / 4, atol=1e-7)


def test_what_training_changes_is_flat_in_mup_and_grows_in_the_usual_parametrization():
    """The slopes of log2(change) over log2(width), after 1, 2 and 3 steps."""
    wide = {"muP": mup_model, "usual": lambda width: GPT(config_of(width))}
    slopes = {
        name: width_slopes(WIDTHS, coordinate_check(make, WIDTHS, a_batch(), seeds=(0, 1)))
        for name, make in wide.items()
    }
    for part in ("embedding", "block 1", "block 2", "last norm"):
        assert abs(slopes["muP"][part]).max() < 0.1, part
    assert abs(slopes["muP"]["logits"]).max() < 0.25  # random at first, and larger in a small sample
    assert slopes["usual"]["logits"].min() > 0.7
    assert min(slopes["usual"][f"block {n}"].min() for n in (1, 2)) > 1.0
    assert slopes["usual"]["logits"].shape == (3,)


def test_each_factor_is_needed():
    """Leave one out, and something grows or shrinks with the width."""

    class UndividedLogits(MuPGPT):
        def forward(self, *arguments, **options):
            return super().forward(*arguments, **options) * width_ratio(self.config)

    def usual_rates(model, lr):
        return [{"params": list(model.parameters()), "lr": lr, "weight_decay": 0.0}]

    def slopes(make, **options):
        return width_slopes(WIDTHS, coordinate_check(make, WIDTHS, a_batch(), seeds=(0,), **options))

    undivided = slopes(lambda width: UndividedLogits(MuPConfig.of(config_of(width), BASE)))
    assert undivided["logits"].min() > 0.7
    assert slopes(mup_model, groups=usual_rates)["block 2"].min() > 0.5


def test_all_parameters_are_in_a_group_and_each_decays_as_much_a_step(kind):
    model = mup_model(64, **kind)
    groups = width_groups(model, lr=0.02, weight_decay=0.1)
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(map(id, model.parameters()))
    for group in groups:
        assert group["lr"] * group["weight_decay"] in (0.0, pytest.approx(0.002))
        assert all((p.dim() < 2) == (group["weight_decay"] == 0) for p in group["params"])
    plain = width_groups(GPT(config_of(64, replace(BASE, **kind))), lr=0.02, weight_decay=0.1)
    assert {group["lr"] for group in plain} == {0.02}


def test_the_plain_model_of_a_trained_one_computes_the_same_and_generates(kind):
    model = trained(mup_model(64, **kind)).eval()
    plain, ids = to_plain(model), a_batch()[0]
    assert (type(plain), type(plain.config)) == (GPT, ModelConfig)
    assert not plain.training
    assert torch.allclose(plain(ids), model(ids), atol=1e-5)
    assert (
        generate(plain, torch.tensor([[1, 2]]), 5, temperature=0).tolist()
        == generate(model, torch.tensor([[1, 2]]), 5, temperature=0).tolist()
    )


def test_its_costs_are_those_of_the_plain_model(kind):
    model = mup_model(64, **kind)
    plain = to_plain(model).config
    assert sum(count_parameters(model.config).values()) == model.n_parameters()
    assert flops_per_token(model.config) == flops_per_token(plain)


def test_a_run_resumes_exactly(tmp_path):
    path = tmp_path / "run.pt"

    def run(model, steps, **options):
        for _ in train(model, [a_batch()], steps=steps, optimizer=optimizer_of(model), **options):
            pass
        return model

    whole = run(mup_model(32), 6)
    run(mup_model(32), 3, checkpoint=path)
    resumed = run(mup_model(32, seed=1), 6, checkpoint=path, resume=True)
    assert torch.equal(whole(a_batch()[0]), resumed(a_batch()[0]))


@pytest.mark.parametrize(
    ("config", "base", "message"),
    [
        (config_of(32), None, "base=None"),
        (config_of(32, qk_norm=True), BASE, "qk_norm=True, and False in the base"),
        (config_of(32, norm_position="post"), replace(BASE, norm_position="post"), "norms before"),
        (config_of(32, scaled_embeddings=True), replace(BASE, scaled_embeddings=True), "switch it off"),
        (config_of(32), MuPConfig.of(BASE, BASE), "give the plain ModelConfig"),
    ],
)
def test_what_cannot_be_in_mup_is_refused(config, base, message):
    with pytest.raises(ValueError, match=message):
        MuPConfig.of(config, base)


@pytest.mark.parametrize(
    ("lr", "weight_decay", "message"), [(-1, 0, "lr is -1"), (0.1, -1, "weight_decay is")]
)
def test_bad_rates_are_refused(lr, weight_decay, message):
    with pytest.raises(ValueError, match=message):
        width_groups(mup_model(32), lr, weight_decay)


def test_rates_decays_and_multipliers_are_those_of_the_package_mup(kind):
    """Its own bookkeeping, from the shapes of our model, its base, and one that differs in all widths."""
    mup = pytest.importorskip("mup")
    base, other = GPT(replace(BASE, **kind)), GPT(config_of(32, replace(BASE, **kind)))
    target = config_of(64, replace(BASE, **kind), n_heads=4, n_kv_heads=kind.get("n_kv_heads"))
    torch.manual_seed(0)
    model = MuPGPT(MuPConfig.of(target, base.config))
    shapes = mup.make_base_shapes(base, other)
    mup.set_base_shapes(model, shapes, rescale_params=False, do_assert=False)
    theirs = mup.MuAdamW(
        [p for p in model.parameters() if p.dim() >= 2], lr=0.02, weight_decay=0.1
    ).param_groups
    expected = {id(p): (group["lr"], group["weight_decay"]) for group in theirs for p in group["params"]}
    for group in width_groups(model, 0.02, 0.1):
        for p in group["params"]:
            if p.dim() >= 2:
                assert (group["lr"], group["weight_decay"]) == pytest.approx(expected[id(p)])
    for name, p in model.named_parameters():
        if is_hidden_matrix(name, p):
            assert width_ratio(model.config, name) == p.infshape.width_mult(), name
    assert width_ratio(model.config) == model.unembedding.weight.infshape.width_mult()


@pytest.mark.parametrize(
    ("widths", "changes"), [([16], [[1.0]]), ([16, 32], [[0.0, 1.0]]), ([16, 32], [[1.0, np.nan]])]
)
def test_a_slope_needs_two_widths_and_changes(widths, changes):
    with pytest.raises(ValueError, match=r"different widths|has no slope"):
        width_slopes(widths, {"logits": np.array(changes)})
