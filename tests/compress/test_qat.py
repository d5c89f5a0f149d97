"""Training with rounded weights: torch's own fake quantization, the packed model it becomes, and what it learns."""

import pytest
import torch
from torch import nn

from llmcourse.checkpoint import load_checkpoint, save_checkpoint
from llmcourse.compress.qat import fake_quantize, finish_qat, prepare_qat
from llmcourse.compress.rounding import dequantize_weight, quantize_model, quantize_weight
from llmcourse.data.batches import TokenBatches
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import BITS, Scheme
from llmcourse.packed_model import are_tied, packed_schemes
from llmcourse.pretrained import load_model, save_model
from llmcourse.tokenizer import BPETokenizer
from llmcourse.training import train

SCHEMES = [Scheme(b, g, s) for b in BITS for g in (8, "row", "tensor") for s in (True, False)]
IDS = torch.arange(16)[None]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=258, d_model=16, n_heads=2, n_layers=2, context_length=16)
    return GPT(ModelConfig(**(sizes | options))).eval()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_is_the_weight_as_it_will_be_packed_to_the_last_bit(scheme):
    weight = normal(6, 24)
    assert torch.equal(
        fake_quantize(weight, scheme), dequantize_weight(*quantize_weight(weight, scheme), scheme)
    )


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.group != 8], ids=str)
def test_values_and_gradient_equal_torchs_fake_quantization(scheme):
    """torch's gradient, too, is that of the rounded value inside the range of the codes, and 0 outside."""
    weight, upstream = normal(6, 24).requires_grad_(), normal(6, 24, seed=1)
    fake_quantize(weight, scheme).backward(upstream)
    other = weight.detach().clone().requires_grad_()
    _, scales, zeros = quantize_weight(weight, scheme)
    zeros, limits = torch.zeros_like(scales) if zeros is None else zeros, (scheme.low, scheme.high)
    if scheme.group == "tensor":
        expected = torch.fake_quantize_per_tensor_affine(other, scales.float(), zeros.int(), *limits)
    else:
        expected = torch.fake_quantize_per_channel_affine(other, scales.float(), zeros.int(), 0, *limits)
    expected.backward(upstream)
    assert torch.allclose(fake_quantize(weight, scheme), expected, rtol=0, atol=1e-6)
    assert torch.equal(weight.grad, other.grad)


def test_at_the_edge_the_gradient_stops_half_a_step_behind_the_last_code():
    """int2 asymmetric, range -1 to 1: steps of 2/3, and 0 moved to code 2, so the last level is 2/3."""
    values = torch.tensor([[-1.0, 0.6, 0.99, 1.0]])
    weight = values.clone().requires_grad_()
    rounded = fake_quantize(weight, Scheme(2, "row", symmetric=False))
    step = 0.66650390625  # 2/3 in float16
    assert rounded.tolist() == [[-2 * step, step, step, step]]
    rounded.sum().backward()
    assert weight.grad.tolist() == [
        [1.0, 1.0, 1.0, 0.0]
    ]  # 0.99 is nearest to the last code; 1.0 / step > 1.5
    assert 0.99 / step < 1.5 < 1.0 / step


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_range_that_reaches_the_extremes_lets_every_gradient_pass(scheme):
    weight = normal(6, 24).requires_grad_()
    fake_quantize(weight, scheme).sum().backward()
    assert torch.equal(weight.grad, torch.ones(6, 24))


def test_what_a_clipped_range_cuts_off_gets_no_gradient():
    weight, scheme = normal(6, 24).requires_grad_(), Scheme(3, "row")
    fake_quantize(weight, scheme, torch.full((6,), 0.5)).sum().backward()
    beyond = weight.abs() > 0.5 * weight.abs().amax(1, keepdim=True) * (3.5 / 3)  # half a step behind code 3
    assert torch.equal(weight.grad, (~beyond).float())
    assert 0.01 < beyond.float().mean() < 0.2


KINDS = {
    "int4": (dict(), Scheme(4, 8), None, False),
    "int2 biases": (dict(bias=True, norm="layer"), Scheme(2, 8, symmetric=False), None, True),
    "ends": (dict(), Scheme(3, "row"), Scheme(8, "row"), False),
    "untied ends": (dict(tied_embeddings=False), Scheme(8, "row"), Scheme(4, 8, symmetric=False), True),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def trained(model, steps=3, **options):
    batches = TokenBatches(torch.arange(2000) % 7, 4, 16)
    for _ in train(model, batches, steps=steps, lr=3e-3, **options):
        pass
    return model.eval()


def test_before_training_it_is_rounding_and_after_it_the_packed_model_to_the_last_bit(kind, tmp_path):
    options, scheme, embedding, clip = kind
    model, how = small_model(**options), dict(embedding=embedding, clip=clip)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared = prepare_qat(model, scheme, **how)
    assert list(prepared.state_dict()) == list(before)
    assert torch.equal(prepared(IDS), quantize_model(model, scheme, **how)(IDS))
    trained(prepared)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(
        not torch.equal(tensor, before[name])
        for name, tensor in prepared.state_dict().items()
        if "up" in name
    )
    finished = finish_qat(prepared)
    assert torch.equal(finished(IDS), prepared(IDS))
    assert packed_schemes(finished) == packed_schemes(quantize_model(model, scheme, **how))
    assert are_tied(finished) == are_tied(prepared) == model.config.tied_embeddings
    save_model(tmp_path, finished, BPETokenizer.from_merges([(97, 98)]), torch.float32)
    assert torch.equal(load_model(tmp_path)[0](IDS), finished(IDS))


def test_gradients_are_those_of_the_model_with_rounded_weights(kind):
    """Straight-through: what the loss says of the rounded weight is applied to the weight itself."""
    options, scheme, embedding, clip = kind
    prepared = prepare_qat(small_model(**options), scheme, embedding=embedding, clip=clip)
    plain = GPT(prepared.config)
    plain.load_state_dict(prepared.state_dict())
    for name, parameter in plain.named_parameters():
        layer = prepared.get_submodule(name.rpartition(".")[0])
        if hasattr(layer, "scheme") and name.endswith("weight"):
            parameter.data = fake_quantize(parameter.data, layer.scheme, layer.shares)
    for model in (prepared, plain):
        model(IDS).square().sum().backward()
    for (name, one), (_, other) in zip(prepared.named_parameters(), plain.named_parameters(), strict=True):
        passes = one.grad != 0  # all but those cut off at the edge
        assert torch.allclose(one.grad[passes], other.grad[passes], rtol=1e-4, atol=1e-5), name
        assert passes[other.grad != 0].float().mean() > 0.6, name


def test_a_run_resumes_exactly_and_loads_into_a_model_of_floats(tmp_path):
    scheme, path = Scheme(2, 8, symmetric=False), tmp_path / "run.pt"
    whole = trained(prepare_qat(small_model(), scheme), steps=6)
    trained(prepare_qat(small_model(), scheme), steps=3, checkpoint=path)
    resumed = trained(prepare_qat(small_model(1), scheme), steps=6, checkpoint=path, resume=True)
    assert torch.equal(resumed(IDS), whole(IDS))
    save_checkpoint(tmp_path / "model.pt", whole)
    plain = small_model(2)
    load_checkpoint(tmp_path / "model.pt", plain)
    assert torch.equal(quantize_model(plain, scheme)(IDS), whole(IDS))


def test_training_wins_back_what_rounding_lost():
    """A text that repeats is learned to a loss near 0; ternary weights spoil it, and training repairs them."""
    torch.manual_seed(0)
    model = trained(small_model(), steps=150)
    scheme, ids = Scheme(2, 8), (torch.arange(17) % 7)[None]

    def loss(model):
        with torch.no_grad():
            return nn.functional.cross_entropy(model(ids[:, :-1])[0, 3:], ids[0, 4:]).item()

    rounded = quantize_model(model, scheme)
    repaired = finish_qat(trained(prepare_qat(model, scheme), steps=60))
    assert loss(model) < 0.3
    assert loss(repaired) - loss(model) < 0.5 * (loss(rounded) - loss(model))


def test_what_cannot_be_prepared_or_finished_is_refused():
    model = small_model()
    bad = small_model()
    bad.blocks[0].mlp.up.weight.data[0, 0] = torch.nan
    for make, message in (
        (lambda: prepare_qat(model, Scheme(4, 64)), "group=64 does not divide the 16 inputs"),
        (lambda: prepare_qat(bad, Scheme(4, 8)), "a weight is not finite"),
        (lambda: prepare_qat(nn.Linear(8, 8), Scheme(4, 8)), "is no GPT of llmcourse"),
        (lambda: prepare_qat(quantize_model(model, Scheme(4, 8)), Scheme(4, 8)), "is quantized already"),
        (lambda: prepare_qat(prepare_qat(model, Scheme(4, 8)), Scheme(4, 8)), "is prepared already"),
        (lambda: finish_qat(model), "has no layer of prepare_qat"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("embedding", [None, Scheme(8, "row")])
def test_a_model_of_another_precision_is_trained_and_finished_in_it(dtype, embedding):
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=20, d_model=16, n_heads=2, n_layers=1)).to(dtype)
    prepared = prepare_qat(model, Scheme(4, "row"), embedding=embedding).eval()
    ids = torch.arange(10)[None]
    prepared(ids).sum().backward()
    with torch.no_grad():  # with gradients, torch adds narrow numbers in another order
        logits = prepared(ids)
    assert logits.dtype == dtype
    assert torch.equal(logits, finish_qat(prepared)(ids))
    assert torch.equal(logits, quantize_model(model, Scheme(4, "row"), embedding=embedding)(ids))
