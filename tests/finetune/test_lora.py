"""LoRA against its formula, against peft on transformers' GPT-2 and Llama, and in files."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from llmcourse.compress.qat import prepare_qat
from llmcourse.compress.quantize import quantize_linears
from llmcourse.convert import to_transformers
from llmcourse.finetune.lora import (
    TARGETS,
    LoRALinear,
    add_lora,
    fingerprint,
    load_adapters,
    lora_layers,
    lora_parameters,
    merge_lora,
    save_adapters,
)
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import Scheme
from llmcourse.training import train
from llmcourse.tune.techniques import TECHNIQUES, TechniqueConfig, make_model

# peft 0.21 asks transformers 5 by an old name
old_name = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

V = 40
KINDS = ("gpt2", "llama")


def small_model(kind="llama", seed=0, **changes):
    torch.manual_seed(seed)
    options = dict(context_length=16, d_model=32, n_heads=4, n_layers=2) | changes
    config_type = TechniqueConfig if TECHNIQUES & options.keys() else ModelConfig
    return make_model(getattr(config_type, kind)(V, **options)).eval()


def with_random_b(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        layer.B.data = 0.1 * torch.randn(layer.B.shape, generator=generator)
    return model


def ids(seed=2):
    return torch.randint(V, (2, 10), generator=torch.Generator().manual_seed(seed))


# ---- one layer --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_layer_is_the_formula_and_merges_exactly(rank, bias):
    torch.manual_seed(0)
    base = nn.Linear(6, 8, bias=bias).double()
    layer = LoRALinear(copy.deepcopy(base), rank, alpha=5.0).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(layer(x), base(x))  # B = 0
    layer.B.data.normal_()
    expected = x @ (base.weight + 5.0 / rank * layer.B @ layer.A).T + (base.bias if bias else 0)
    assert torch.allclose(layer(x), expected)
    assert torch.allclose(layer.merged().double()(x), expected)


@pytest.mark.parametrize("rank", [0, -1, 7, 1.5, "2", None, float("nan")])
def test_a_rank_that_the_matrix_cannot_have_is_refused(rank):
    with pytest.raises(ValueError, match=r"has ranks 1 to 6"):
        LoRALinear(nn.Linear(6, 8), rank)


# ---- a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_at_first_nothing_changes_and_only_a_and_b_have_gradients(kind):
    model = small_model(kind)
    adapted = add_lora(copy.deepcopy(model), rank=2)
    assert torch.equal(adapted(ids()), model(ids()))
    with_random_b(adapted)(ids()).logsumexp(-1).sum().backward()
    graded = [p for p in adapted.parameters() if p.grad is not None]
    assert {id(p) for p in graded} == {id(p) for p in lora_parameters(adapted)}
    assert all(p.grad.abs().sum() > 0 for p in graded)
    assert len(lora_layers(adapted)) == 4 * 2
    C, hidden = 32, model.config.hidden_width
    up = 2 * hidden if kind == "llama" else hidden
    wanted = 2 * 2 * ((C + 3 * C) + (C + C) + (C + up) + (hidden + C))
    assert sum(p.numel() for p in lora_parameters(adapted)) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_only_the_adapters_and_merging_keeps_the_logits(kind):
    model = small_model(kind)
    adapted = add_lora(copy.deepcopy(model), rank=4)
    list(train(adapted, [(ids(), ids())], steps=5, lr=1e-2, weight_decay=0.0))
    trained = dict(adapted.named_parameters())
    for name, parameter in model.named_parameters():
        module, _, part = name.rpartition(".")
        kept = trained.get(name, trained.get(f"{module}.base.{part}"))
        assert torch.equal(kept, parameter), name
    adapted.eval()
    expected = adapted(ids())
    assert not torch.allclose(expected, model(ids()), atol=1e-3)
    merged = merge_lora(adapted)
    assert torch.allclose(merged(ids()), expected, atol=1e-5)
    assert lora_layers(merged) == {}
    assert merged.state_dict().keys() == model.state_dict().keys()
    assert all(p.requires_grad for p in merged.parameters())


@pytest.mark.parametrize("targets", [("attention.qkv",), ("mlp.down", "attention.out")])
def test_targets_choose_the_layers(targets):
    adapted = add_lora(small_model(), rank=1, targets=targets)
    assert all(name.endswith(targets) for name in lora_layers(adapted))
    assert len(lora_layers(adapted)) == 2 * len(targets)


def test_a_refused_model_stays_as_it_was():
    model = small_model()
    model.unembedding = nn.Linear(32, 16, bias=False)  # narrower than the layers before it
    for options, message in (
        (dict(targets=("nothing",)), r"'nothing' matches no layer: choose from \['attention.out', "),
        (dict(targets=("mlp.up", "mlp.dwon")), "'mlp.dwon' matches no layer"),
        (dict(targets=("token_embedding",)), "'token_embedding' matches no layer: choose"),
        (dict(targets=("norm",)), "'norm' matches no layer"),
        (dict(targets=("final_norm",)), "'final_norm' matches no layer"),
        (dict(targets=("mlp",)), "'mlp' matches no layer"),
        (dict(targets=("p",)), "'p' matches no layer"),
        (dict(targets=()), "matches no layer"),
        (dict(targets=("mlp.up", "unembedding"), rank=17), "rank=17: a matrix of 16 x 32"),
        (dict(rank=33), "has ranks 1 to 32"),
        (dict(rank=0), "rank=0"),
    ):
        with pytest.raises(ValueError, match=message):
            add_lora(model, **options)
        assert lora_layers(model) == {}
        assert all(p.requires_grad for p in model.parameters())
    add_lora(model, 2)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model, 2)


def test_adapters_learn_on_a_four_bit_base():
    torch.manual_seed(0)
    model = small_model(d_model=64)
    adapted = add_lora(quantize_linears(model), rank=4)
    losses = [s.loss for s in train(adapted, [(ids(), ids())], steps=30, lr=2e-2, weight_decay=0.0)]
    assert losses[-1] < losses[0] - 0.2
    adapted.eval()
    expected = adapted(ids())
    assert torch.allclose(merge_lora(adapted)(ids()), expected, atol=1e-4)


# ---- precision, ties, and wrappers ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_layer_on_a_narrow_base_equals_that_of_peft_to_the_bit(dtype):
    """huggingface/peft keeps A and B in float32, casts the input to them and the sum back (#1515)."""
    torch.manual_seed(0)
    base = nn.Linear(32, 48).to(dtype)
    ours = LoRALinear(copy.deepcopy(base), rank=4, alpha=7.0)
    ours.B.data.normal_()
    theirs = get_peft_model(
        nn.Sequential(copy.deepcopy(base)), LoraConfig(r=4, lora_alpha=7.0, target_modules=["0"])
    )
    layer = theirs.base_model.model[0]
    layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = ours.A.data, ours.B.data
    assert {layer.lora_A["default"].weight.dtype, ours.A.dtype} == {torch.float32}
    x = torch.randn(5, 32).to(dtype)
    assert ours(x).dtype == dtype
    assert torch.equal(ours(x), theirs(x))
    merged = theirs.merge_and_unload()[0].weight
    assert merged.dtype == ours.merged().weight.dtype == dtype
    assert torch.allclose(ours.merged().weight, merged, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_base_is_adapted_trained_and_merged_in_its_precision(dtype, quantized):
    model = small_model(d_model=64).to(dtype)
    model = quantize_linears(model) if quantized else model
    with torch.no_grad():  # oneDNN has another kernel where gradients are asked for
        before = model(ids())
        adapted = add_lora(model, 2)
        assert torch.equal(adapted(ids()), before)
    assert {p.dtype for p in lora_parameters(adapted)} == {torch.float32}
    with_random_b(adapted)(ids()).float().logsumexp(-1).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in lora_parameters(adapted))
    expected = adapted(ids())
    assert expected.dtype == dtype
    merged = merge_lora(adapted)
    assert {p.dtype for p in merged.parameters()} == {dtype}
    error = 0.1 if dtype == torch.bfloat16 else 0.02
    assert torch.allclose(merged(ids()).float(), expected.float(), atol=error)
    assert not torch.allclose(before.float(), expected.float(), atol=error)


def test_a_merge_on_a_tied_output_unties_it_and_the_configuration_says_so():
    """huggingface/peft#2972; the embedding stays as it was, as with an adapter that is not merged."""
    model = small_model("gpt2")
    assert model.config.tied_embeddings
    embedding = model.token_embedding.weight.detach().clone()
    adapted = with_random_b(add_lora(model, 2, targets="unembedding"))
    expected = adapted(ids())
    merged = merge_lora(adapted)
    assert torch.allclose(merged(ids()), expected, atol=1e-5)
    assert torch.equal(merged.token_embedding.weight, embedding)
    assert not merged.config.tied_embeddings
    assert merge_lora(add_lora(small_model("gpt2"), 2)).config.tied_embeddings
    theirs = to_transformers(merged)
    assert not theirs.config.tie_word_embeddings
    assert torch.allclose(theirs(ids()).logits, expected, atol=1e-5)


def test_alpha_is_part_of_the_state():
    """A state that fits in every name and shape must give the same outputs."""
    one = with_random_b(add_lora(small_model(), 2, alpha=3.0))
    two = add_lora(small_model(seed=1), 2, alpha=16.0)
    two.load_state_dict(one.state_dict())
    assert torch.equal(two(ids()), one(ids()))


def test_a_layer_in_two_places_keeps_one_adapter():
    model = small_model()
    model.blocks[1].mlp.up = model.blocks[0].mlp.up
    adapted = with_random_b(add_lora(model, 2))
    assert adapted.blocks[0].mlp.up is adapted.blocks[1].mlp.up
    assert len(list(lora_parameters(adapted))) == 2 * 7
    expected = adapted(ids())
    merged = merge_lora(adapted)
    assert lora_layers(merged) == {}
    assert torch.allclose(merged(ids()), expected, atol=1e-5)
    assert merged.blocks[0].mlp.up is merged.blocks[1].mlp.up


@torch.no_grad()
def test_compiled_models_are_adapted_and_merged_by_their_plain_names(tmp_path):
    whole = torch.compile(small_model(), backend="eager")
    part = small_model()
    part.blocks[0] = torch.compile(part.blocks[0], backend="eager")
    plain = with_random_b(add_lora(small_model(), 2))
    for compiled in (whole, part):
        assert fingerprint(compiled) == fingerprint(small_model())
        add_lora(compiled, 2)
        assert lora_layers(compiled).keys() == lora_layers(plain).keys()
        for name, layer in lora_layers(compiled).items():
            layer.load_state_dict(lora_layers(plain)[name].state_dict())
        assert torch.equal(compiled(ids()), plain(ids()))
        save_adapters(tmp_path / "adapters", compiled)
        assert torch.equal(load_adapters(tmp_path / "adapters", small_model())(ids()), plain(ids()))
        assert torch.allclose(merge_lora(compiled)(ids()), plain(ids()), atol=1e-5)


# ---- peft -------------------------------------------------------------------------------------


def copy_to_peft(adapted, theirs):
    """Give peft's layers our A and B: Llama's fused matrices share A, and split B."""
    modules = dict(theirs.named_modules())
    names = {"attention.out": "self_attn.o_proj", "mlp.down": "mlp.down_proj"}
    for name, layer in lora_layers(adapted).items():
        number, part = name.split(".")[1], ".".join(name.split(".")[2:])
        if any(n.endswith("c_attn") for n in modules):
            gpt2 = {
                "attention.qkv": "attn.c_attn",
                "attention.out": "attn.c_proj",
                "mlp.up": "mlp.c_fc",
                "mlp.down": "mlp.c_proj",
            }
            targets = [f"transformer.h.{number}.{gpt2[part]}"]
        elif part == "attention.qkv":
            targets = [f"model.layers.{number}.self_attn.{x}_proj" for x in "qkv"]
        elif part == "mlp.up":
            targets = [f"model.layers.{number}.mlp.{x}_proj" for x in ("gate", "up")]
        else:
            targets = [f"model.layers.{number}.{names[part]}"]
        for target, b in zip(targets, layer.B.chunk(len(targets)), strict=True):
            module = modules[f"base_model.model.{target}"]
            module.lora_A["default"].weight.data = layer.A.data.clone()
            module.lora_B["default"].weight.data = b.data.clone()


@old_name
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rank", "alpha"), [(2, 16), (4, 3)])
def test_logits_equal_those_of_peft_before_and_after_merging(kind, rank, alpha):
    model = small_model(kind)
    adapted = with_random_b(add_lora(copy.deepcopy(model), rank, alpha))
    layers = {
        "gpt2": ["c_attn", "c_proj", "c_fc"],
        "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=layers[kind], lora_dropout=0.0, fan_in_fan_out=kind == "gpt2"
    )
    theirs = get_peft_model(to_transformers(model), config).eval()
    assert torch.allclose(theirs(ids()).logits, model(ids()), atol=1e-5)  # both begin at zero
    copy_to_peft(adapted, theirs)
    with torch.no_grad():
        expected, ours = theirs(ids()).logits, adapted(ids())
        assert (expected - model(ids())).abs().max() > 0.05
        assert torch.allclose(ours, expected, atol=1e-4)
        merged = theirs.merge_and_unload()(ids()).logits
        assert torch.allclose(merge_lora(adapted)(ids()), merged, atol=1e-4)


@old_name
def test_peft_trains_as_many_parameters_where_nothing_is_fused():
    model = small_model("gpt2")
    ours = add_lora(copy.deepcopy(model), 4)
    config = LoraConfig(r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    theirs, _ = get_peft_model(to_transformers(model), config).get_nb_trainable_parameters()
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == theirs


# ---- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [TARGETS, ("attention.qkv",)])
def test_adapters_come_back_from_a_file(tmp_path, targets):
    model = small_model()
    adapted = with_random_b(add_lora(copy.deepcopy(model), 3, 7.0, targets))
    path = tmp_path / "folder" / "adapters.safetensors"
    save_adapters(path, adapted)
    again = load_adapters(path, copy.deepcopy(model))
    assert torch.equal(again(ids()), adapted(ids()))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "other",
    [
        dict(seed=5),  # other weights, so another training run
        dict(d_model=16),
        dict(n_layers=1),
        dict(context_length=8),
        dict(kind="gpt2"),
    ],
)
def test_adapters_of_another_base_are_refused_and_the_model_stays(tmp_path, other):
    path = tmp_path / "adapters.safetensors"
    save_adapters(path, add_lora(small_model(), 2))
    model = small_model(**other)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="belongs to another base model"):
        load_adapters(path, model)
    assert lora_layers(model) == {}
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in model.named_parameters())


def test_every_weight_belongs_to_the_base():
    """A base with another adapter merged in, or fine-tuned with a frozen embedding, is another base."""
    for kind in (dict(kind="gpt2"), dict(qk_norm=True, value_embeddings=True, embedding_shift=1)):
        model = small_model(**kind)
        first = fingerprint(model)
        for name, parameter in model.named_parameters():
            before = parameter.detach().clone()
            parameter.data.view(-1)[-1] += 0.01
            assert fingerprint(model) != first, name
            parameter.data.copy_(before)
        assert fingerprint(model) == first


def test_a_change_of_the_codes_or_of_the_configuration_is_another_base():
    small = quantize_linears(small_model(d_model=64))
    first = fingerprint(small)
    assert first != fingerprint(small_model(d_model=64))
    for name, buffer in small.named_buffers():
        if name.startswith("blocks"):
            before = buffer.clone()
            buffer.view(-1)[-1:].add_(1)
            assert fingerprint(small) != first, name
            buffer.copy_(before)
    for changes in (dict(n_heads=2), dict(norm_eps=1e-4), dict(rotary_base=500.0), dict(logit_cap=30.0)):
        assert fingerprint(small_model(**changes)) != fingerprint(small_model()), (
            "same weights, other outputs"
        )


def test_the_fingerprint_does_not_depend_on_where_and_how_the_base_is_kept(tmp_path):
    """Nor on its own adapters, nor on what is only for training."""
    model = small_model()
    first = fingerprint(model)
    narrow = copy.deepcopy(model).half()
    assert fingerprint(narrow) == fingerprint(narrow.float()) == first  # as saved in float16, and loaded
    assert fingerprint(add_lora(copy.deepcopy(model), 2, targets=("unembedding", "mlp.up"))) == first
    assert fingerprint(copy.deepcopy(model).requires_grad_(False).train()) == first
    assert fingerprint(small_model(dropout=0.3, zero_init=False)) == first


@pytest.mark.parametrize(
    "base", [lambda m: m, lambda m: m.bfloat16(), quantize_linears, lambda m: quantize_linears(m.bfloat16())]
)
def test_adapters_come_back_on_every_kind_of_base(tmp_path, base):
    def fresh():
        return base(small_model("gpt2", d_model=64))

    adapted = with_random_b(add_lora(fresh(), 2, 5.0, (*TARGETS, "unembedding")))
    path = tmp_path / "adapters"
    save_adapters(path, adapted)
    again = load_adapters(path, fresh())
    assert torch.equal(again(ids()), adapted(ids()))
    with pytest.raises(ValueError, match="has adapters already"):
        load_adapters(path, again)
    for other in (
        small_model("gpt2", d_model=64).double(),
        quantize_linears(small_model("gpt2", 5, d_model=64)),
    ):
        if fingerprint(other) != fingerprint(fresh()):
            with pytest.raises(ValueError, match="belongs to another base model"):
                load_adapters(path, other)
            assert lora_layers(other) == {}


def test_what_a_file_of_adapters_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "adapters"
    adapted = add_lora(small_model(), 2)
    adapted.final_norm.requires_grad_(True)
    with pytest.raises(ValueError, match=r"final_norm\.weight \(1 such\) is trained along"):
        save_adapters(path, adapted)
    mixed = add_lora(small_model(), 2, targets=("mlp.up",))
    mixed.blocks[0].mlp.down = LoRALinear(mixed.blocks[0].mlp.down, 4)
    with pytest.raises(
        ValueError, match=r"adapters of several \(rank, alpha / rank\), \[\(2, 8.0\), \(4, 4.0\)\]"
    ):
        save_adapters(path, mixed)
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.clear(),
        lambda tensors: tensors.pop("blocks.0.mlp.up.B"),
        lambda tensors: tensors.update({"blocks.0.mlp.up.C": torch.ones(1)}),
        lambda tensors: tensors.update({"blocks.7.mlp.up.A": torch.ones(2, 32)}),
        lambda tensors: tensors.update({"blocks.0.mlp.up.A": torch.ones(1, 32)}),  # copy_ would repeat it
        lambda tensors: tensors.update({"blocks.0.mlp.up.A": torch.ones(3, 32)}),
        lambda tensors: tensors.update({"token_embedding.A": torch.ones(2, 32)}),
    ],
)
def test_a_file_with_parts_missing_or_of_another_shape_is_refused(tmp_path, change):
    path = tmp_path / "adapters"
    save_adapters(path, with_random_b(add_lora(small_model(), 2)))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)
    model = small_model()
    with pytest.raises(ValueError, match=r"is damaged: it should hold an A and a B of rank 2"):
        load_adapters(path, model)
    assert lora_layers(model) == {}
    assert all(p.requires_grad for p in model.parameters())


def test_a_file_that_knows_the_embedding_only_is_refused_by_name(tmp_path):
    path = tmp_path / "adapters"
    save_file({"x": torch.zeros(1)}, path, {"rank": "2", "alpha": "16.0", "base": "0123456789abcdef"})
    with pytest.raises(ValueError, match="written by a version that looked at the embedding only"):
        load_adapters(path, small_model())


def test_files_that_are_no_adapters_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no adapters at"):
        load_adapters(tmp_path / "none", small_model())
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no adapters"):
        load_adapters(tmp_path / "other.safetensors", small_model())
    (tmp_path / "cut.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="holds no adapters"):
        load_adapters(tmp_path / "cut.safetensors", small_model())
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapters(tmp_path / "empty", small_model())
    assert not (tmp_path / "empty").exists()


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "adapters.safetensors"
    adapted = add_lora(small_model(), 2)
    save_adapters(path, adapted)
    before = path.read_bytes()

    def full_disk(tensors, filename, metadata=None):
        filename.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("llmcourse.finetune.lora.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_adapters(path, with_random_b(adapted))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_is_trained_with_rounding_gets_no_adapters():
    prepared = prepare_qat(GPT(ModelConfig(vocab_size=9, d_model=8, n_layers=1)), Scheme(4, "row"))
    with pytest.raises(ValueError, match="is trained with rounding"):
        add_lora(prepared, rank=2)
    assert not lora_layers(prepared)
