"""Packed weights: bits against Python's own integers, layers against torch, files against memory."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llmcourse.checkpoint import load_checkpoint, save_checkpoint
from llmcourse.compress.quantize import quantize_linears
from llmcourse.compress.rounding import quantize_model, quantize_weight
from llmcourse.convert import to_transformers
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.finetune.lora import add_lora, merge_lora
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import BITS, PackedEmbedding, PackedLinear, Scheme, pack_bits, unpack_bits
from llmcourse.packed_model import are_tied, packed_schemes, unpack_model
from llmcourse.pretrained import load_model, save_model
from llmcourse.tokenizer import BPETokenizer

SCHEMES = [Scheme(b, g, s) for b in BITS for g in (8, "row", "tensor") for s in (True, False)]
IDS = torch.arange(12)[None]


def tiny_tokenizer():
    return BPETokenizer.from_merges([(97, 98)])


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=tiny_tokenizer().vocab_size, context_length=16, d_model=24, n_heads=2, n_layers=2)
    return GPT(ModelConfig(**(sizes | options))).eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- schemes and bits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bits=5), r"bits=5: choose one of \(2, 3, 4, 8\)"),
        (dict(bits=4, group=0), "group=0: give a number of weights"),
        (dict(bits=4, group="column"), "group='column': give a number"),
        (dict(bits=4, group=True), "group=True: give"),
        (dict(bits=4, symmetric="yes"), "symmetric='yes': give True or False"),
    ],
)
def test_a_scheme_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Scheme(**options)


def test_a_group_must_divide_the_width():
    with pytest.raises(ValueError, match=r"group=64 does not divide the 24 inputs of a weight of \(72, 24\)"):
        quantize_model(small_model(), Scheme(4, 64))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("n", [1, 3, 8, 13, 64])
def test_bits_lie_in_the_file_as_in_one_long_integer(bits, n):
    codes = torch.randint(2**bits, (5, n), generator=torch.Generator().manual_seed(n))
    packed = pack_bits(codes, bits)
    for row, stored in zip(codes.tolist(), packed, strict=True):
        whole = sum(code << (bits * i) for i, code in enumerate(row))  # Python's integers have no end
        assert bytes(stored.tolist()) == whole.to_bytes(-(-n * bits // 8), "little")
    assert torch.equal(unpack_bits(packed, bits, n).long(), codes)


@pytest.mark.parametrize(
    "codes", [torch.tensor([4]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor(1)]
)
def test_what_does_not_fit_into_the_bits_is_refused(codes):
    with pytest.raises(ValueError, match="codes of 2 bits must be rows of whole numbers from 0 to 3"):
        pack_bits(codes, 2)


# ---- layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_is_torchs_linear_with_the_codes_times_their_scales(scheme, bias):
    linear = nn.Linear(24, 10, bias=bias)
    codes, scales, zeros = quantize_weight(linear.weight, scheme)
    layer = PackedLinear.from_codes(codes, scales, zeros, scheme, linear.bias)
    expected = torch.empty(10, 24)
    for row in range(10):
        for column in range(24):
            place = {"tensor": (), "row": (row,)}.get(scheme.group, (row, column // 8))
            zero = 0 if zeros is None else zeros[place].item()
            expected[row, column] = (codes[row, column].item() - zero) * scales[place].float()
    assert torch.equal(layer.weight, expected)
    x = normal(3, 24).requires_grad_()
    assert torch.equal(layer(x), nn.functional.linear(x, expected, linear.bias))
    layer(x).sum().backward()  # a gradient passes through, to what lies below
    assert torch.allclose(x.grad, expected.sum(0).expand_as(x), atol=1e-5)
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_buffers_hold_what_the_formula_counts(scheme):
    weight = normal(10, 24)
    layer = PackedLinear.from_codes(*quantize_weight(weight, scheme), scheme)
    stored = sum(part.numel() * part.element_size() for part in layer.state_dict().values())
    assert stored == scheme.n_bytes(weight.shape)


def test_bits_for_one_weight_of_the_course_model():
    per_weight = {
        s: s.n_bytes((1024, 192)) * 8 / (1024 * 192)
        for s in (Scheme(2, 64, symmetric=False), Scheme(3, "row"), Scheme(4, 64))
    }
    assert list(per_weight.values()) == [2 + 18 / 64, 3 + 16 / 192, 4 + 16 / 64]


def test_int8_rows_are_stored_as_what_an_integer_kernel_reads():
    codes, scales, zeros = quantize_weight(normal(10, 24), Scheme(8, "row"))
    layer = PackedLinear.from_codes(codes, scales, zeros, Scheme(8, "row"))
    assert (layer.codes.dtype, layer.scales.shape, layer.zeros) == (torch.int8, (10,), None)
    assert torch.equal(layer.codes, codes)


def test_a_layer_has_parts_of_its_own():
    codes, scales, zeros = quantize_weight(normal(10, 24), Scheme(8, "row"))
    layer = PackedLinear.from_codes(codes, scales, zeros, Scheme(8, "row"))
    before = layer.weight
    codes.zero_(), scales.zero_()
    assert torch.equal(layer.weight, before)


def test_parts_that_do_not_belong_together_are_refused():
    scheme = Scheme(4, 8)
    codes, scales, _ = quantize_weight(normal(10, 24), scheme)
    zeros = torch.zeros_like(scales, dtype=torch.uint8)
    for parts, message in (
        ((codes + 1, scales, None), "whole numbers from -7 to 7"),
        ((codes.float(), scales, None), "are whole numbers"),
        ((codes, scales[:, :1], None), r"needs scales of \(10, 3\)"),
        ((codes, scales, zeros), "needs scales"),
        ((codes, 0 * scales, None), "positive and finite"),
        ((codes, scales * torch.nan, None), "positive and finite"),
        ((codes, 1e6 * scales.float(), None), "finite in float16"),
        ((codes[0], scales, None), "only matrices"),
    ):
        with pytest.raises(ValueError, match=message):
            PackedLinear.from_codes(*parts, scheme)
    with pytest.raises(ValueError, match="needs scales and zeros"):
        PackedLinear.from_codes(codes.abs(), scales, None, Scheme(4, 8, symmetric=False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_a_change_of_precision_leaves_codes_and_scales_as_they_are(dtype, tied):
    model = quantize_model(small_model(tied_embeddings=tied), Scheme(4, 8), embedding=Scheme(8, "row"))
    before, expected = {n: t.clone() for n, t in model.state_dict().items()}, model(IDS)
    narrowed = model.to(dtype)
    assert narrowed(IDS).dtype == dtype
    assert torch.allclose(narrowed(IDS).float(), expected, atol=0.05)
    for name, part in narrowed.state_dict().items():
        if name.rpartition(".")[2] in PackedLinear.PARTS:
            assert torch.equal(part, before[name]), name
    assert are_tied(narrowed) == tied
    assert generate(narrowed, [1, 2], 3, temperature=0).shape == (1, 5)  # its cache is as narrow


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_of_another_scheme_is_refused(strict):
    states = {s: quantize_model(small_model(), s).state_dict() for s in SCHEMES}
    for scheme in SCHEMES:
        model = quantize_model(small_model(1), scheme)
        for other, state in states.items():
            if other != scheme:
                with pytest.raises(RuntimeError, match=r"quantized with other options|size mismatch"):
                    model.load_state_dict(state, strict=strict)


# ---- models ------------------------------------------------------------------------------------

KINDS = {
    "int4": (dict(), Scheme(4, 8), None),
    "int3 biases": (dict(bias=True, norm="layer", positions="learned"), Scheme(3, "row"), None),
    "int2": (dict(), Scheme(2, 8, symmetric=False), Scheme(8, "row")),
    "int8 untied": (dict(tied_embeddings=False), Scheme(8, "row"), Scheme(4, 8, symmetric=False)),
    "tensor": (dict(n_kv_heads=1), Scheme(8, "tensor", symmetric=False), Scheme(8, "tensor")),
}


@pytest.fixture(params=KINDS)
def packed(request):
    options, scheme, embedding = KINDS[request.param]
    return quantize_model(small_model(**options), scheme, embedding=embedding)


def test_a_packed_model_comes_back_to_the_bit(packed, tmp_path):
    save_model(tmp_path, packed, tiny_tokenizer(), torch.float32)
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded(IDS), packed(IDS))
    assert packed_schemes(loaded) == packed_schemes(packed) != {}
    assert are_tied(loaded) == are_tied(packed) == packed.config.tied_embeddings
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    save_model(tmp_path / "again", loaded, tiny_tokenizer(), torch.float32)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_the_file_holds_the_bytes_that_the_schemes_promise(packed, tmp_path):
    save_model(tmp_path, packed, tiny_tokenizer())
    promised = sum(
        module.scheme.n_bytes(module.shape)
        for name, module in packed.named_modules()
        if isinstance(module, PackedLinear | PackedEmbedding)
        and not (name == "unembedding" and are_tied(packed))
    )
    floats = {id(p): p for p in packed.parameters()}.values()
    promised += 2 * sum(p.numel() for p in floats)  # float16
    promised += 2 * sum(b.numel() for name, b in packed.named_buffers() if name.endswith("bias"))
    data = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert len(data) - header == promised


def test_a_packed_model_generates_what_its_unpacked_copy_does(packed):
    unpacked = unpack_model(packed)
    assert packed_schemes(unpacked) == {}
    assert torch.equal(unpacked(IDS), packed(IDS))
    assert are_tied(unpacked) == are_tied(packed)
    for options in (dict(temperature=0), dict(temperature=1.0, seed=3)):
        texts = [generate(m, [1, 2, 3], 9, **options) for m in (packed, unpacked)]
        assert torch.equal(*texts)
    assert evaluate_loss(packed, IDS[0]) == pytest.approx(evaluate_loss(unpacked, IDS[0]), abs=1e-6)


def test_a_checkpoint_keeps_packed_weights(packed, tmp_path):
    save_checkpoint(tmp_path / "c.pt", packed)
    other = copy.deepcopy(packed)
    for name, buffer in other.named_buffers():
        if name.endswith("codes"):
            buffer.zero_()
    load_checkpoint(tmp_path / "c.pt", other)
    assert torch.equal(other(IDS), packed(IDS))


def test_a_compiled_packed_model_is_saved_as_it_is_inside(packed, tmp_path):
    save_model(tmp_path, torch.compile(packed, backend="eager"), tiny_tokenizer(), torch.float32)
    assert torch.equal(load_model(tmp_path)[0](IDS), packed(IDS))


def test_folders_of_floats_hold_no_word_of_packing(tmp_path):
    """So that what was written before loads, and what is written now loads in earlier versions."""
    save_model(tmp_path, small_model(), tiny_tokenizer())
    assert "packed" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed.update({"blocks.9.mlp.up": {"bits": 4}}), "'blocks.9.mlp.up' is no layer"),
        (lambda packed: packed.update({"final_norm": {"bits": 4}}), "'final_norm' is no layer"),
        (lambda packed: packed.update({"blocks.0.mlp.up": {"bits": 6}}), "bits=6: choose"),
        (lambda packed: packed.update({"blocks.0.mlp.up": {"levels": 6}}), "unexpected keyword"),
        (lambda packed: packed.update({"blocks.0.mlp.up": 4}), "mapping"),
        (lambda packed: packed.update({"blocks.0.mlp.up": {"bits": 4, "group": 7}}), "does not divide"),
    ],
)
def test_a_packing_that_was_changed_is_refused(tmp_path, change, message):
    save_model(tmp_path, quantize_model(small_model(), Scheme(4, 8)), tiny_tokenizer())
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["packed"])
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"config\.json is no configuration of save_model: .*{message}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.0.mlp.up.scales"), "lacks blocks.0.mlp.up.scales"),
        (
            lambda state: state.update({"blocks.0.mlp.up.codes": torch.zeros(3, 3)}),
            r"codes is \(3, 3\) there",
        ),
        (lambda state: state.update({"blocks.0.mlp.up.weight": torch.zeros(3)}), "which the model lacks"),
        (
            lambda state: state.update(
                {"blocks.0.mlp.up.scales": state["blocks.0.mlp.up.scales"].to(torch.bfloat16)}
            ),
            "scales is torch.bfloat16 in the state",
        ),
    ],
)
def test_a_file_of_other_parts_is_refused(tmp_path, change, message):
    save_model(tmp_path, quantize_model(small_model(), Scheme(4, 8)), tiny_tokenizer())
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, {"tokens": str(tiny_tokenizer().vocab_size)})
    with pytest.raises(ValueError, match=rf"(?s)model\.safetensors.*{message}"):
        load_model(tmp_path)


def test_what_needs_floats_says_how_to_get_them(packed, tmp_path):
    with pytest.raises(ValueError, match=r"is packed \(int.*unpack_model\(model\)"):
        to_transformers(packed)


def test_nf4_weights_are_still_named_as_such(tmp_path):
    model = quantize_linears(small_model(d_model=64))
    with pytest.raises(ValueError, match="has weights of four bits"):
        save_model(tmp_path, model, tiny_tokenizer())


def test_an_adapter_grows_on_packed_weights_and_is_merged_into_floats():
    """QLoRA on integers: peft's rule, the base stays frozen and is unpacked for each use."""
    model = quantize_model(small_model(), Scheme(8, "row"), embedding=Scheme(8, "row"))
    before = model(IDS)
    adapted = add_lora(copy.deepcopy(model), 2)
    assert torch.equal(adapted(IDS), before)
    for name, parameter in adapted.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(std=0.02)
    expected = adapted(IDS)
    assert not torch.allclose(expected, before)
    assert torch.allclose(merge_lora(adapted)(IDS), expected, atol=1e-5)
    assert are_tied(adapted)


# ---- other precisions and places ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_is_packed_as_one_that_takes_it_afterwards(dtype):
    scheme = Scheme(8, "row")
    model = small_model().to(dtype)
    before, after = (quantize_model(m, scheme, embedding=scheme).to(dtype) for m in (model, model.float()))
    assert before(IDS).dtype == dtype
    assert torch.equal(before(IDS), after(IDS))
    assert quantize_model(small_model().to(dtype), scheme, embedding=scheme)(IDS).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_unpacking_a_model_of_another_precision_gives_one_that_runs(dtype):
    scheme = Scheme(8, "row")
    packed = quantize_model(small_model(bias=True), scheme, embedding=scheme).to(dtype)
    unpacked = unpack_model(packed)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {part.dtype for part in unpacked.parameters()} == {wanted}
    assert torch.equal(unpacked(IDS), packed.to(wanted)(IDS))
    assert unpacked.unembedding.weight is unpacked.token_embedding.weight


def test_tied_packed_ends_stay_one_table_on_another_device():
    scheme = Scheme(4, 8)
    packed = quantize_model(small_model(), scheme, embedding=scheme)
    for moved in (copy.deepcopy(packed).to("meta"), packed.to("meta")):
        assert are_tied(moved)
        assert moved.unembedding.scales is moved.token_embedding.scales
    untied = quantize_model(small_model(tied_embeddings=False), scheme, embedding=scheme)
    assert not are_tied(untied.to("meta"))


def test_two_packed_ends_are_not_loaded_into_one_table(tmp_path):
    scheme = Scheme(4, 8)
    untied = quantize_model(small_model(tied_embeddings=False), scheme, embedding=scheme)
    tied = quantize_model(small_model(1), scheme, embedding=scheme)
    before = tied(IDS)
    save_checkpoint(tmp_path / "untied", untied)
    with pytest.raises(ValueError, match="tied_embeddings"):
        load_checkpoint(tmp_path / "untied", tied)
    with pytest.raises(ValueError, match="tied_embeddings=False"):
        tied.load_state_dict(untied.state_dict())
    assert torch.equal(tied(IDS), before)
