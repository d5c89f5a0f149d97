"""Masks against torch's own and a search over all choices; kept under every optimizer, saved as always."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from llmcourse.compress.prune import (
    apply_masks,
    keep_masks,
    magnitude_masks,
    prunable,
    sparsity,
    two_of_four_masks,
)
from llmcourse.compress.quantize import quantize_linears
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import AdamW, muon_and_adamw
from llmcourse.training import train

V, T = 11, 6


def gpt(seed: int = 0, **shape) -> GPT:
    shape = dict(context_length=T, d_model=16, n_heads=2, n_layers=2, d_ff=32) | shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(ModelConfig(V, **shape))


def batches(n: int = 3):
    rows = torch.randint(V, (n, 4, T + 1), generator=torch.Generator().manual_seed(0))
    return [(row[:, :-1], row[:, 1:]) for row in rows]


def layers_of(model):
    return [(model.get_submodule(name.removesuffix(".weight")), "weight") for name in prunable(model)]


# ---- which weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_the_blocks_are_pruned_and_neither_end_is(tied):
    model = gpt(tied_embeddings=tied, bias=True)
    before = copy.deepcopy(model.state_dict())
    apply_masks(model, magnitude_masks(model, 0.5))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == prunable(model).keys()
    assert all(name.startswith("blocks.") and name.endswith(".weight") for name in changed)


def test_a_compiled_model_has_the_same_masks():
    model = gpt()
    compiled = torch.compile(model, backend="eager")
    one, other = (magnitude_masks(m, 0.5) for m in (model, compiled))
    assert one.keys() == other.keys()
    apply_masks(compiled, one)
    assert sparsity(model) == 0.5


# ---- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.2, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_magnitude_masks_are_torchs(share, scope):
    model, theirs = gpt(), gpt()
    masks = magnitude_masks(model, share, scope)
    if scope == "layer":
        for layer, name in layers_of(theirs):
            prune.l1_unstructured(layer, name, amount=share)
    else:
        prune.global_unstructured(layers_of(theirs), prune.L1Unstructured, amount=share)
    for (layer, _), mask in zip(layers_of(theirs), masks.values(), strict=True):
        assert torch.equal(mask, layer.weight_mask.bool())
    apply_masks(model, masks)
    ids = batches(1)[0][0]
    torch.testing.assert_close(model(ids), theirs(ids), rtol=0, atol=0)
    n = sum(w.numel() for w in prunable(model).values())
    assert sparsity(model) == pytest.approx(share, abs=len(masks) / n)


def test_global_takes_more_from_a_matrix_of_small_weights():
    model = gpt()
    model.blocks[0].mlp.down.weight.data /= 100
    masks = magnitude_masks(model, 0.2, "global")
    assert not masks["blocks.0.mlp.down.weight"].any()
    each = magnitude_masks(model, 0.2)["blocks.0.mlp.down.weight"]
    assert each.float().mean().item() == pytest.approx(0.8, abs=1e-2)


def test_two_of_four_keeps_the_pair_of_largest_sum_of_squares():
    """Of six pairs in each group, by trying them all."""
    model = gpt()
    masks = two_of_four_masks(model)
    for name, weight in prunable(model).items():
        for four, mask in zip(weight.detach().view(-1, 4), masks[name].view(-1, 4), strict=True):
            best = max(itertools.combinations(range(4), 2), key=lambda pair: four[list(pair)].square().sum())
            assert mask.nonzero().flatten().tolist() == list(best)
    apply_masks(model, masks)
    assert sparsity(model) == 0.5


def test_two_of_four_is_the_pattern_of_torchs_own_sparsifier():
    from torch.ao.pruning import WeightNormSparsifier

    model, theirs = gpt(), gpt()
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    names = [name.removesuffix(".weight") for name in prunable(theirs)]
    sparsifier.prepare(theirs, [{"tensor_fqn": f"{name}.weight"} for name in names])
    sparsifier.step()
    sparsifier.squash_mask()
    apply_masks(model, two_of_four_masks(model))
    for mine, other in zip(prunable(model).values(), prunable(theirs).values(), strict=True):
        assert torch.equal(mine, other)


def test_of_equal_weights_two_are_kept_all_the_same():
    model = gpt()
    for weight in prunable(model).values():
        nn.init.constant_(weight, 0.5)
    for mask in two_of_four_masks(model).values():
        assert mask.view(-1, 4).tolist() == [[True, True, False, False]] * (mask.numel() // 4)
    assert sum(int(m.sum()) for m in magnitude_masks(model, 0.25).values()) == 0.75 * sum(
        w.numel() for w in prunable(model).values()
    )


# ---- masks that stay ------------------------------------------------------------------------------

OPTIMIZERS = {
    "train's own": lambda model: None,
    "AdamW, decay": lambda model: AdamW(model.parameters(), lr=1e-2, weight_decay=0.5),
    "torch's AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5),
    "Muon": lambda model: muon_and_adamw(model, weight_decay=0.1),
    "SGD, momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("kind", ["half", "2:4"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_masks_hold_after_each_step_and_all_else_learns(optimizer, kind):
    model = gpt()
    masks = two_of_four_masks(model) if kind == "2:4" else magnitude_masks(model, 0.5)
    before = copy.deepcopy(model.state_dict())
    with keep_masks(model, masks):
        for _ in train(model, batches(), steps=5, optimizer=optimizer(model), accumulate=2):
            for name, weight in prunable(model).items():
                assert bool((weight[~masks[name]] == 0).all())
    for name, weight in prunable(model).items():
        assert bool((weight[~masks[name]] == 0).all())
        assert bool((weight != before[name])[masks[name]].float().mean() > 0.99)
    assert all(p._backward_hooks is None or not p._backward_hooks for p in model.parameters())
    list(train(model, batches(), steps=1))  # outside, the zeros are weights like others
    assert sparsity(model) < 0.1


def test_the_steps_are_those_of_weights_multiplied_by_their_masks():
    """As torch.nn.utils.prune trains: weight = original · mask, and a gradient through the product."""
    mine, theirs, sgd = gpt(), gpt(), lambda model: torch.optim.SGD(model.parameters(), lr=0.3)
    masks = magnitude_masks(mine, 0.6)
    for layer, name in layers_of(theirs):
        prune.l1_unstructured(layer, name, amount=0.6)
    with keep_masks(mine, masks):
        runs = [list(train(m, batches(), steps=6, optimizer=sgd(m))) for m in (mine, theirs)]
    for one, other in zip(*runs, strict=True):
        assert (one.loss, one.grad_norm) == pytest.approx((other.loss, other.grad_norm), rel=1e-5)
    for layer, name in layers_of(theirs):
        prune.remove(layer, name)
    for a, b in zip(prunable(mine).values(), prunable(theirs).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_run_with_masks_stops_and_goes_on_to_the_bit(tmp_path):
    masks = magnitude_masks(gpt(), 0.5)

    def run(path, stop_at=None):
        model, losses = gpt(), []
        how = dict(optimizer=muon_and_adamw(model), checkpoint=path, resume=True)
        with keep_masks(model, masks):
            for step in train(model, batches(4), steps=6, **how):
                losses.append(step.loss)
                if step.step == stop_at:
                    break
        return model, losses

    whole, expected = run(tmp_path / "whole")
    first, rest = run(tmp_path / "parts", stop_at=4), run(tmp_path / "parts")
    assert first[1] + rest[1] == expected
    for a, b in zip(whole.parameters(), rest[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_reads_the_model_twice_and_an_error_inside_change_nothing():
    model, masks = gpt(), magnitude_masks(gpt(), 0.5)

    def twice(model, batch):
        one, other = (next_token_loss(model, batch) for _ in range(2))
        return one[0] + other[0], one[1], one[0]

    with keep_masks(model, masks):
        list(train(model, batches(), steps=2, loss=twice))
    assert sparsity(model) == 0.5
    with pytest.raises(KeyboardInterrupt), keep_masks(model, masks):
        raise KeyboardInterrupt
    assert not any(p._backward_hooks for p in model.parameters())


def test_another_models_optimizer_leaves_the_masks_alone():
    model, other = gpt(), gpt(1)
    with keep_masks(model, magnitude_masks(model, 0.5)):
        list(train(other, batches(), steps=1))
    assert (sparsity(model), sparsity(other)) == (0.5, 0.0)


# ---- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "half"])
def test_a_share_outside_is_refused(share):
    with pytest.raises(ValueError, match=r"share is .*: give the share of weights to remove"):
        magnitude_masks(gpt(), share)


def test_other_bad_input_gets_a_sentence():
    with pytest.raises(ValueError, match="scope='row' is unknown: choose 'layer' or 'global'"):
        magnitude_masks(gpt(), 0.5, "row")
    with pytest.raises(ValueError, match="Linear has no linear layers of floats in `blocks`"):
        magnitude_masks(nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match="before it is quantized"):
        two_of_four_masks(quantize_linears(gpt(), block=16))
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.down\.weight has 18 inputs: groups of four"):
        two_of_four_masks(gpt(d_ff=18))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {"unembedding.weight": m}, r"unembedding\.weight is no weight that can be pruned"),
        (lambda m: {"blocks.0.mlp.up.weight": m[:1]}, r"the mask of blocks\.0\.mlp\.up\.weight is \(1, 16\)"),
        (lambda m: {"blocks.0.mlp.up.weight": m.float()}, r"in torch\.float32: it must be .* in torch\.bool"),
    ],
)
def test_masks_of_another_model_are_refused_and_nothing_changes(change, words):
    model = gpt()
    masks = magnitude_masks(model, 0.5)
    bad = masks | change(masks["blocks.0.mlp.up.weight"])
    for use in (lambda: apply_masks(model, bad), lambda: keep_masks(model, bad).__enter__()):
        with pytest.raises(ValueError, match=words):
            use()
        assert sparsity(model) == 0.0
