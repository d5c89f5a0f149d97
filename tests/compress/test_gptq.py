"""GPTQ against its definition: least squares column by column, OBQ's formula, and a search over all codes."""

import itertools

import pytest
import torch
from torch import nn

from llmcourse.compress.gptq import collect_hessian, gptq, inverse_root, quantize_gptq
from llmcourse.compress.rounding import fit_scales, quantize_model, quantize_weight, to_codes
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import Scheme, dequantize_weight, dequantized
from llmcourse.tune.techniques import make_config, make_model

SCHEMES = [Scheme(b, g, s) for b in (2, 3, 4) for g in (4, "row", "tensor") for s in (True, False)]


def problem(seed, outputs=5, inputs=8, tokens=64):
    """A weight, and inputs that go together, as they do in a model."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(inputs) + 0.7 * torch.randn(inputs, inputs, generator=generator)
    x = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64) @ mix.double()
    return torch.randn(outputs, inputs, generator=generator), x


def second_moment(x):
    return x.T @ x / len(x)


def output_error(weight, parts, scheme, hessian):
    change = (dequantize_weight(*parts, scheme) - weight).double()
    return torch.einsum("oi,ij,oj->", change, hessian, change)


def small_model(**options):
    torch.manual_seed(0)
    sizes = dict(vocab_size=20, d_model=16, n_heads=2, n_layers=2, context_length=16)
    model = GPT(ModelConfig(**(sizes | options))).eval()
    for parameter in model.parameters():  # larger than a fresh model's, so that layers matter
        parameter.data *= 4
    return model


def parts_of(scales, zeros, scheme, column):
    grouped = isinstance(scheme.group, int)
    return [p if p is None or not grouped else p[:, column // scheme.group] for p in (scales, zeros)]


def by_least_squares(weight, x, scheme, damping):
    """Fix the columns in order; before each, the rest is what fits the outputs best: solved anew, in full."""
    n = weight.shape[1]
    ridge = (damping * second_moment(x).diagonal().mean() * len(x)).sqrt() * torch.eye(n, dtype=torch.float64)
    x = torch.cat([x, ridge])
    target, codes = x @ weight.double().T, []
    scales, zeros = fit_scales(weight, scheme)
    done = torch.zeros(weight.shape[0], 0, dtype=torch.float64)
    for column in range(n):
        rest = torch.linalg.lstsq(
            x[:, column:], target - x[:, :column] @ done.T
        ).solution.T  # (O, I - column)
        if isinstance(scheme.group, int) and column % scheme.group == 0:
            new = fit_scales(rest[:, : scheme.group], scheme)
            for part, fitted in zip((scales, zeros), new, strict=True):
                if part is not None:
                    part[:, column // scheme.group] = fitted[:, 0]
        parts = parts_of(scales, zeros, scheme, column)
        codes.append(to_codes(rest[:, 0], *parts, scheme))
        done = torch.cat([done, dequantized(codes[-1], *parts)[:, None].double()], dim=1)
    return torch.stack(codes, dim=1), scales, zeros


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_each_column_is_rounded_from_what_least_squares_leaves_for_it(scheme, damping):
    for seed in range(4):
        weight, x = problem(seed)
        found = gptq(weight, second_moment(x), scheme, damping)
        for one, other in zip(found, by_least_squares(weight, x, scheme, damping), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def by_obq(weight, hessian, scheme, order):
    """Optimal Brain Quantization, arXiv:2208.11580, sec. 5, with the inverse over what is left, made anew."""
    scales, zeros = fit_scales(weight, scheme)
    left, codes, remaining = weight.double(), torch.zeros(weight.shape), list(order)
    while remaining:
        column = remaining[0]
        inverse = torch.linalg.inv(hessian[remaining][:, remaining])
        parts = parts_of(scales, zeros, scheme, column)
        codes[:, column] = to_codes(left[:, column], *parts, scheme).float()
        error = left[:, column] - dequantized(codes[:, column], *parts)
        left[:, remaining] -= torch.outer(error / inverse[0, 0], inverse[0])
        remaining = remaining[1:]
    return codes


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_gptq_is_obq_with_a_fixed_order(scheme):
    for seed in range(4):
        weight, x = problem(seed)
        hessian = second_moment(x)
        order = hessian.diagonal().argsort(descending=True).tolist()
        found = gptq(weight, hessian, scheme, damping=0.0, by_activation=True)
        assert torch.equal(found[0].float(), by_obq(weight, hessian, scheme, order))
        assert all(map(torch.equal, found[1:2], fit_scales(weight, scheme)[:1]))  # fitted before the first
        if scheme.group != 4:
            found = gptq(weight, hessian, scheme, damping=0.0)
            assert torch.equal(found[0].float(), by_obq(weight, hessian, scheme, range(8)))


@pytest.mark.parametrize("inputs", [2, 3])
def test_it_comes_close_to_the_best_of_all_codes_and_closer_than_rounding(inputs):
    """Greedy: the last column is the best one for the others. (A correction may fall out of the range of
    the codes, and greedy may then end behind rounding, but more often it is ahead.)"""
    scheme, best, found, rounded = Scheme(4, "row", symmetric=False), [], [], []
    every = torch.tensor(list(itertools.product(range(16), repeat=inputs)), dtype=torch.uint8)
    for seed in range(60):
        weight, x = problem(seed, outputs=1, inputs=inputs)
        hessian = second_moment(x)
        codes, *parts = gptq(weight, hessian, scheme, damping=0.0)
        changes = (dequantized(every, *parts) - weight).double()  # (4^inputs, inputs)
        errors = torch.einsum("ni,ij,nj->n", changes, hessian, changes)
        same_start = (every[:, :-1] == codes[:, :-1]).all(1)
        found.append(output_error(weight, (codes, *parts), scheme, hessian))
        assert found[-1].item() == pytest.approx(errors[same_start].min().item(), rel=1e-4, abs=1e-7)
        best.append(errors.min())
        rounded.append(output_error(weight, quantize_weight(weight, scheme), scheme, hessian))
    best, found, rounded = (torch.stack(each) for each in (best, found, rounded))
    assert (found >= best - 1e-6).all()
    exact = [(each <= best + 1e-6).double().mean() for each in (found, rounded)]
    assert exact[0] > exact[1]
    ahead, behind = (found < rounded - 1e-6).sum(), (found > rounded + 1e-6).sum()
    assert ahead > 2 * behind


def test_inputs_that_are_not_correlated_leave_nothing_to_make_good():
    weight, _ = problem(0)
    for scheme in SCHEMES:
        found = gptq(weight, torch.diag(torch.linspace(1, 9, 8)), scheme)
        for one, other in zip(found, quantize_weight(weight, scheme), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_the_scale_of_the_hessian_does_not_matter_nor_the_order_of_inputs_with_act_order():
    weight, x = problem(1)
    hessian, scheme = second_moment(x), Scheme(3, "row")
    found = gptq(weight, hessian, scheme)[0]
    assert torch.equal(gptq(weight, 1e6 * hessian, scheme)[0], found)
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    one = gptq(weight, hessian, scheme, by_activation=True)[0]
    other = gptq(weight[:, shuffled], hessian[shuffled][:, shuffled], scheme, by_activation=True)[0]
    assert torch.equal(other, one[:, shuffled])
    assert not torch.equal(one, found)  # the order does matter


def test_an_input_that_never_occurs_is_rounded_to_nearest_and_makes_good_nothing():
    weight, x = problem(2)
    x[:, 3] = 0
    hessian, scheme = second_moment(x), Scheme(3, "row")
    codes, scales, _ = gptq(weight, hessian, scheme)
    assert torch.equal(codes[:, 3], to_codes(weight[:, 3], scales, None, scheme))
    others = [i for i in range(8) if i != 3]
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    alive = gptq(weight[:, others], damped[others][:, others], scheme, damping=0.0)
    if torch.equal(alive[1], scales):  # the same scales, unless the dead column held the extreme
        assert torch.equal(alive[0], codes[:, others])


def test_with_endless_damping_gptq_is_rounding():
    weight, x = problem(3)
    for scheme in SCHEMES:
        found = gptq(weight, second_moment(x), scheme, damping=1e9)
        assert torch.equal(found[0], quantize_weight(weight, scheme)[0])


def test_outputs_are_kept_better_than_by_rounding():
    for scheme in SCHEMES:
        errors = torch.zeros(2)
        for seed in range(20):
            weight, x = problem(seed, 16, 16)
            hessian = second_moment(x)
            for i, parts in enumerate((gptq(weight, hessian, scheme), quantize_weight(weight, scheme))):
                errors[i] += output_error(weight, parts, scheme, hessian)
        assert errors[0] < 0.9 * errors[1]


def test_the_root_of_the_inverse_is_one():
    _, x = problem(4)
    hessian = second_moment(x)
    upper = inverse_root(hessian, 0.1)
    damped = hessian + 0.1 * hessian.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    assert torch.allclose(upper.T @ upper @ damped, torch.eye(8, dtype=torch.float64), atol=1e-9)
    assert torch.equal(upper, upper.triu())


def test_what_is_no_hessian_of_the_layer_is_refused():
    weight, x = problem(5)
    hessian = second_moment(x)
    for given, options, message in (
        (hessian[:7, :7], {}, "for a weight with 8 inputs"),
        (hessian[:7], {}, r"shape \(7, 8\) for a weight"),
        (hessian * torch.nan, {}, "the hessian is not finite"),
        (second_moment(x[:3]), dict(damping=0.0), "give more calibration text, or more damping"),
        (hessian, dict(damping=-1.0), "damping is -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            gptq(weight, given, Scheme(4, "row"), **options)
    with pytest.raises(ValueError, match="not finite"):
        gptq(weight * torch.nan, hessian, Scheme(4, "row"))


# ---- models ------------------------------------------------------------------------------------


def test_the_hessian_is_the_mean_over_the_inputs_and_the_hook_goes_away():
    layer, x = nn.Linear(6, 2), torch.randn(3, 5, 6)
    found = collect_hessian(layer, lambda: (layer(x), layer(2 * x)))
    flat = x.flatten(0, 1).double()
    assert torch.allclose(found, 2.5 * second_moment(flat), rtol=1e-5)
    with pytest.raises(RuntimeError):
        collect_hessian(layer, lambda: layer(x[..., :5]))
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    "options", [{}, dict(bias=True, norm="layer", positions="learned", tied_embeddings=False)]
)
def test_each_layer_sees_what_the_packed_layers_before_it_make(options):
    """The same by whole passes: pack one layer more, look at the next one's inputs, and so on."""
    model, scheme, table = small_model(**options), Scheme(3, 4), Scheme(8, "row")
    rows = torch.randint(20, (40, 16), generator=torch.Generator().manual_seed(1))
    before = model(rows)
    packed = quantize_gptq(model, rows, scheme, embedding=table)
    assert torch.equal(model(rows), before)
    assert not any(p.requires_grad for p in packed.parameters())
    part = quantize_model(model, scheme, embedding=table)  # for the ends; then layer by layer
    names = [
        name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.startswith("blocks")
    ]
    for name in names:
        part.set_submodule(name, model.get_submodule(name))
    for name in names:
        layer = part.get_submodule(name)
        parts = gptq(layer.weight, collect_hessian(layer, lambda: part(rows)), scheme)
        assert torch.equal(packed.get_submodule(name).weight, dequantize_weight(*parts, scheme)), name
        part.set_submodule(name, packed.get_submodule(name))
    assert torch.equal(part(rows), packed(rows))


def test_on_its_calibration_text_it_changes_the_logits_less_than_rounding():
    model = small_model()
    rows = torch.randint(20, (40, 16), generator=torch.Generator().manual_seed(1))
    scheme = Scheme(2, 4, symmetric=False)
    changes = [
        (q(rows) - model(rows)).norm()
        for q in (quantize_gptq(model, rows, scheme), quantize_model(model, scheme))
    ]
    assert changes[0] < 0.9 * changes[1]


def test_text_that_cannot_calibrate_is_refused():
    model = small_model()
    for rows, message in (
        (torch.zeros(2, 4, dtype=torch.long), r"rows of \(2, 4\) are 8 tokens, fewer than the 48 inputs"),
        (torch.zeros(64, dtype=torch.long), r"rows of shape \(64,\)"),
        (torch.zeros(8, 16), "in torch.float32: give token ids"),
        (torch.zeros(8, 17, dtype=torch.long), "17 tokens do not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_gptq(model, rows, Scheme(4, 4))
    with pytest.raises(ValueError, match="is quantized already"):
        quantize_gptq(quantize_model(model, Scheme(4, 4)), torch.zeros(8, 16, dtype=torch.long), Scheme(4, 4))
    technique = make_model(
        make_config(vocab_size=20, d_model=16, n_layers=1, context_length=16, token_shift=True)
    )
    with pytest.raises(ValueError, match="TechniqueGPT has parts between its blocks"):
        quantize_gptq(technique, torch.zeros(8, 16, dtype=torch.long), Scheme(4, 4))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[3] * 40, [99] * 40], "is 99: give ids from 0 to 19"),
        ([[3] * 40, [-1] * 40], "is -1: give ids"),
        (torch.ones(2, 40, dtype=torch.bool), "give token ids"),
        ([3] * 80, "give token ids"),
    ],
)
def test_rows_that_are_no_token_ids_are_refused(rows, message):
    model = GPT(ModelConfig(vocab_size=20, context_length=40, d_model=16, n_heads=2, n_layers=1))
    with pytest.raises(ValueError, match=message):
        quantize_gptq(model, rows, Scheme(4, "row"))


def test_a_layer_that_is_not_run_has_no_hessian():
    with pytest.raises(ValueError, match="gave no inputs to Linear"):
        collect_hessian(nn.Linear(2, 2), lambda: None)


def test_a_layer_that_only_ever_gets_zeros_is_rounded_to_nearest():
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    codes, *parts = gptq(weight, torch.zeros(8, 8), Scheme(3, "row"))
    expected = quantize_weight(weight, Scheme(3, "row"))
    assert torch.equal(codes, expected[0])
    assert torch.equal(parts[0], expected[1])
