"""Decoding with int8 weights: products against whole numbers, logits against the packed model's own forward pass."""

import copy
import importlib.util
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.compress.rounding import quantize_model
from llmcourse.config import CHOICES
from llmcourse.fast.decoding import Decoder, begin_decoder, build_decoder, is_supported
from llmcourse.fast.products import INT8
from llmcourse.finetune.lora import add_lora
from llmcourse.generate import generate, prefill, read
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import PackedLinear, Scheme
from llmcourse.pretrained import load_course_model

V, CONTEXT = 19, 11
NEAR = {"machine code": 3e-4, "torch": 2e-2}  # of the largest logit: rows of int16, and of bfloat16
DECODERS = ["torch", *(["machine code"] if importlib.util.find_spec("numba") else [])]
PRESETS = [ModelConfig.gpt2, ModelConfig.llama, ModelConfig.transformer_2017]


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    monkeypatch.setattr(fast, "compile_decoders", request.param == "machine code")
    return request.param


def make(preset=ModelConfig.llama, linear=INT8, embedding=INT8, **changes) -> GPT:
    """A small packed model of widths that torch can multiply by, made of random numbers, biases and gains too."""
    torch.manual_seed(0)
    shape = dict(context_length=CONTEXT, d_model=32, n_heads=4, n_layers=2, d_ff=48) | changes
    model = GPT(preset(V, **shape))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return quantize_model(model, linear, embedding=embedding)


def ids(rows=1, length=3, seed=1):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def distance(model: GPT, rows: int = 1) -> float:
    """Return how far logits are from the model's own, step by step to a full context, over the largest of them."""
    text, found = ids(rows, CONTEXT), []
    logits, step = prefill(model, text[:, :3])
    found = [logits, *(step(text[:, i]) for i in range(3, CONTEXT))]
    with fast.disabled():
        expected = model(text)[:, 2:]
    assert type(getattr(step, "position", None)) is int, "the model was read the long way"
    return ((torch.stack(found, dim=1) - expected).abs().max() / expected.abs().max()).item()


# --- logits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("mlp", CHOICES["mlp"])
@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize(
    ("norm", "place"), list(itertools.product(CHOICES["norm"], CHOICES["norm_position"]))
)
def test_logits_are_those_of_the_model(norm, place, positions, mlp, rows, decoder):
    model = make(ModelConfig, norm=norm, norm_position=place, positions=positions, mlp=mlp, bias=rows == 1)
    assert distance(model, rows) < NEAR[decoder]


@pytest.mark.parametrize(
    "changes",
    [
        dict(n_kv_heads=1),
        dict(n_kv_heads=2, qk_norm=True, bias=True),
        dict(d_head=16, scaled_embeddings=True),
        dict(tied_embeddings=False),
        dict(tied_embeddings=True, dropout=0.3),
        dict(embedding=None),
    ],
    ids=str,
)
@pytest.mark.parametrize("preset", PRESETS)
def test_parts_and_presets(preset, changes, decoder):
    assert distance(make(preset, **changes), rows=2) < NEAR[decoder]


@pytest.mark.parametrize("d_model", [20, 34, 66])
def test_any_width_is_multiplied_by_machine_code_and_goes_the_long_way_without(d_model, decoder):
    """Widths that no vector divides; torch would read beyond the ends of rows."""
    model = make(ModelConfig.gpt2, d_model=d_model, n_heads=2, d_ff=13, bias=True)
    if decoder == "machine code":
        assert distance(model) < NEAR[decoder]
    else:
        assert build_decoder(model, model.make_caches(1)) is None
        assert begin_decoder(model, ids()) is None
        with torch.no_grad():
            torch.testing.assert_close(prefill(model, ids())[0], model(ids())[:, -1])


@torch.no_grad()
def test_several_tokens_at_once_are_read_as_one_by_one(decoder):
    model, text = make(), ids(1, CONTEXT)[0]
    decode, again = (build_decoder(model, model.make_caches(1)) for _ in range(2))
    for start, T in [(0, 3), (3, 5), (5, 4), (9, 2)]:
        several = decode.read(text[start : start + T], start)
        single = torch.cat([again.read(text[i : i + 1], i) for i in range(start, start + T)])
        assert (several - single).abs().max() < NEAR[decoder] * single.abs().max()


# --- texts -------------------------------------------------------------------------------------


def test_the_course_model_writes_the_same_texts_up_to_ties():
    model, _ = load_course_model()
    model = quantize_model(model, INT8, embedding=INT8)
    for seed in range(4):
        prompt = torch.randint(2048, (1, 8), generator=torch.Generator().manual_seed(seed))
        text = generate(model, prompt, 60, temperature=0)
        with fast.disabled():
            other = generate(model, prompt, 60, temperature=0)
            if not torch.equal(text, other):
                first = int((text != other).nonzero()[0, 1])
                logits = read(model, text[:, :first])[0]
                one, two = logits[text[0, first]], logits[other[0, first]]
                assert (one - two).abs() < 2 * NEAR["machine code"] * logits.abs().max()


# --- products ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def product():
    """A function that multiplies by machine code: x (N, K), codes (M, K), scales (M,) -> (N, M)."""
    pytest.importorskip("numba")
    from llmcourse.fast import int8, machine

    multiply = machine.njit(**machine.options)(
        lambda x, codes, scales, out: int8.add_int8_product(x, codes, scales, out)
    )

    def call(x, codes, scales):
        out = np.zeros((len(x), len(codes)), np.float32)
        multiply(x, codes.ctypes.data, scales.ctypes.data, out)
        return out

    return call


def numbers(N, M, K, seed=0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((N, K)).astype(np.float32)
    codes = random.integers(-127, 128, (M, K)).astype(np.int8)
    return x, codes, random.uniform(1e-3, 1e-1, M).astype(np.float16)


@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize("M", [1, 3, 4, 10])
@pytest.mark.parametrize("K", [1, 15, 32, 47, 64, 200])
def test_products_are_those_of_whole_numbers(N, M, K, product):
    x, codes, scales = numbers(N, M, K)
    steps = min(2**15 - 1, (2**31 - 1) // (128 * K))
    top = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    whole = np.rint(x / top * steps)  # halves may go the other way: off by one step
    expected = whole @ codes.T.astype(np.float64) * scales.astype(np.float64) * top / steps
    step = 127 * scales.astype(np.float64).max() * top.max() / steps
    np.testing.assert_allclose(product(x, codes, scales), expected, rtol=1e-6, atol=2 * step)


def test_the_largest_sums_fit(product):
    for K in (64, 515, 4096, 20_000):
        x, codes, scales = np.ones((1, K), np.float32), np.full((5, K), -128, np.int8), np.ones(5, np.float16)
        np.testing.assert_allclose(product(x, codes, scales), -128.0 * K, rtol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(product):
    x, codes, scales = numbers(6, 9, 100)
    together = product(x, codes, scales)
    assert np.array_equal(together, np.concatenate([product(x[i : i + 1], codes, scales) for i in range(6)]))


def test_zeros_the_smallest_numbers_and_what_is_not_finite(product):
    x, codes, scales = numbers(6, 4, 40)
    expected = product(x, codes, scales)
    x[1], x[2], x[3, 7], x[4, 39] = 0, 1e-42, np.nan, -np.inf
    found = product(x, codes, scales)
    assert np.array_equal(found[[0, 5]], expected[[0, 5]])
    assert (found[1] == 0).all()
    assert (np.abs(found[2]) < 1e-30).all()
    assert np.isnan(found[3:5]).all()


def test_halves_are_read_as_numpy_reads_them():
    pytest.importorskip("numba")
    from llmcourse.fast import int8, machine

    bits = np.arange(2**16, dtype=np.uint16)
    found = machine.njit(lambda bits: np.array([int8.float_of_half(b) for b in bits]))(bits)
    expected = bits.view(np.float16).astype(np.float32)
    assert np.array_equal(found, np.where(np.isinf(expected), np.nan, expected), equal_nan=True)


# --- what is served ----------------------------------------------------------------------------


def test_both_decoders_are_tried_here(decoder):
    model = make()
    assert is_supported(model)
    assert (type(build_decoder(model, model.make_caches(1))) is Decoder) == (decoder == "torch")


@pytest.mark.parametrize(
    "scheme", [Scheme(4, 8), Scheme(8, 8), replace(INT8, symmetric=False), Scheme(8, "tensor")]
)
def test_other_schemes_go_the_long_way(scheme, decoder):
    for model in (make(embedding=scheme), make(linear=scheme, embedding=None)):
        assert not is_supported(model)
        assert len(generate(model, ids(), 4, temperature=0)[0]) == 7


def test_hooks_and_adapters_go_the_long_way(decoder):
    model, seen = make(), []
    layer = model.blocks[1].mlp.down
    assert type(layer) is PackedLinear
    free = generate(model, ids(), 6, temperature=0)
    handle = layer.register_forward_hook(lambda module, x, y: seen.append(len(y)) or y * -3)
    assert not is_supported(model)
    assert not torch.equal(generate(model, ids(), 6, temperature=0), free)
    assert len(seen) == 6
    handle.remove()
    assert is_supported(model)
    assert not is_supported(add_lora(copy.deepcopy(model), rank=2))


@torch.no_grad()
def test_a_weight_that_changes_counts_from_the_next_token_on(decoder):
    model = make(ModelConfig.gpt2, bias=True)
    layer = model.blocks[0].mlp.up
    changes = [
        lambda: layer.codes.neg_(),
        lambda: layer.scales.mul_(1.5),
        lambda: layer.bias.add_(1),
        lambda: model.blocks[1].attention.qkv.codes.zero_(),
        lambda: model.token_embedding.codes.copy_(model.token_embedding.codes.flip(0)),
        lambda: model.unembedding.scales.mul_(2),
    ]
    text, decode = ids(), build_decoder(model, model.make_caches(1))
    before = decode.read(text[0], 0)[-1]
    for change in changes:
        change()
        found = decode.read(text[0], 0)[-1]
        expected = build_decoder(model, model.make_caches(1)).read(text[0], 0)[-1]
        assert torch.equal(found, expected)
        assert not torch.equal(found, before)
        before = found


def test_other_dtypes_are_safe(decoder):
    """Codes and scales keep theirs; machine code and torch's product serve only some of them."""
    model = make(ModelConfig.gpt2, bias=True)
    double = copy.deepcopy(model).double()
    assert build_decoder(double, double.make_caches(1)) is None
    with torch.no_grad(), fast.disabled():
        expected = double(ids())[:, -1]
    torch.testing.assert_close(prefill(double, ids())[0], expected, rtol=0, atol=1e-12)
    text = torch.cat([ids(), torch.tensor([[3]])], dim=1)
    with torch.no_grad(), fast.disabled():
        expected = model(text)[:, -1]
    for dtype in (torch.bfloat16, torch.float16):
        _, step = prefill(copy.deepcopy(model).to(dtype), text[:, :-1])
        assert type(step) is Decoder
        logits = step(text[:, -1])
        assert logits.dtype == dtype
        assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    back = copy.deepcopy(model).to(torch.bfloat16).to(torch.float32)
    assert is_supported(back)
    assert back.blocks[0].mlp.up.scales.dtype == torch.float16


def test_a_scale_that_is_nan_is_found(decoder):
    model = make()
    model.blocks[1].mlp.down.scales[3] = torch.nan
    with pytest.raises(ValueError, match="puts out NaN"):
        generate(model, [1, 2, 3], 2, temperature=0)


def test_an_id_that_the_model_does_not_have_is_an_error(decoder):
    model = make()
    decode = build_decoder(model, model.make_caches(1))
    for wrong in (V, -1):
        with pytest.raises(IndexError):
            decode(torch.tensor([wrong]))


@pytest.mark.parametrize(("width", "scheme"), [(44, INT8), (48, Scheme(4, "row"))])
def test_a_decoder_of_torch_refuses_widths_and_schemes_that_would_be_read_wrongly(width, scheme):
    model = make(d_ff=width, linear=scheme)
    decode = Decoder(model, model.make_caches(1))
    with pytest.raises(ValueError, match="torch cannot multiply by PackedLinear"):
        decode.read(ids()[0], start=0)
