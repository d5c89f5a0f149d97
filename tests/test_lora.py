"""LoRA against its formula, against peft on transformers' GPT-2 and Llama, and in files."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from llmcourse.compress.quantize import quantize_linears
from llmcourse.finetune.lora import (
    TARGETS,
    LoRALinear,
    add_lora,
    load_adapters,
    lora_layers,
    lora_parameters,
    merge_lora,
    save_adapters,
)
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import to_transformers
from llmcourse.training import train

# peft 0.21 asks transformers 5 by an old name
old_name = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

V = 40
KINDS = {"gpt2": ModelConfig.gpt2, "llama": ModelConfig.llama}


def small_model(kind="llama", seed=0, **changes):
    torch.manual_seed(seed)
    options = dict(context_length=16, d_model=32, n_heads=4, n_layers=2) | changes
    return GPT(KINDS[kind](V, **options)).eval()


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


@pytest.mark.parametrize("rank", [0, -1, 7])
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
    for options, message in (
        (dict(targets=("nothing",)), "match no layer"),
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
