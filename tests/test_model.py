"""The model against torch's layers, transformers' parameter counts, formulas and invariances."""

import itertools
import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llmcourse.attention import causal_mask, document_mask
from llmcourse.config import CHOICES, WHOLE
from llmcourse.mlp import ACTIVATIONS, MLP, make_norm
from llmcourse.model import GPT, Block, ModelConfig
from llmcourse.positions import RotaryScaling

V = 13


def randomize(module, seed=0):
    """Give every weight a size at which a mistake shows, in float64."""
    torch.manual_seed(seed)
    for name, parameter in module.double().named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return module.eval()


def small_model(seed=0, **options):
    options = dict(vocab_size=V, context_length=12, d_model=16, n_heads=4, n_layers=2) | options
    return randomize(GPT(ModelConfig(**options)), seed)


def some_tokens(B=2, T=8, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


# --- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", list(itertools.product(*CHOICES.values())), ids="-".join)
def test_every_combination_runs_and_is_causal(parts):
    model = small_model(**dict(zip(CHOICES, parts, strict=True)))
    token_ids = some_tokens()
    changed = token_ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    with torch.no_grad():
        logits, other = model(token_ids), model(changed)
    assert logits.shape == (2, 8, V)
    assert logits.isfinite().all()
    difference = (logits - other).abs().amax(dim=(0, 2))
    assert (difference[:5] < 1e-12).all()
    assert (difference[5:] > 1e-6).all()


@pytest.mark.parametrize("d_model", [6, 64, 96, 100, 128])
def test_hidden_width_is_four_widths_or_eight_thirds_rounded_up(d_model):
    config = ModelConfig(V, d_model=d_model)
    assert config.hidden_width == next(n for n in range(8, 1000, 8) if 3 * n >= 8 * d_model)
    assert replace(config, mlp="gelu").hidden_width == 4 * d_model
    assert replace(config, d_ff=50).hidden_width == 50


def test_the_2017_preset_has_the_parts_of_the_paper():
    model = GPT(ModelConfig.transformer_2017(V, d_model=16))
    block = model.blocks[0]
    assert isinstance(block.attention_norm, nn.LayerNorm)
    assert isinstance(block.mlp_norm, nn.LayerNorm)
    assert isinstance(model.final_norm, nn.Identity)  # the last block already ends with a norm
    assert not block.pre_norm
    assert block.mlp.kind == "relu"
    assert "position_table" in dict(model.named_buffers())
    assert model.config.scaled_embeddings
    assert model.config.tied_embeddings
    assert all(m.bias is not None for m in block.modules() if isinstance(m, nn.Linear))


def test_the_gpt2_preset_has_the_parts_of_gpt2():
    model = GPT(ModelConfig.gpt2(V, d_model=16))
    block = model.blocks[0]
    assert isinstance(block.attention_norm, nn.LayerNorm)
    assert isinstance(model.final_norm, nn.LayerNorm)
    assert block.pre_norm
    assert block.mlp.kind == "gelu_tanh"
    assert isinstance(model.position_embedding, nn.Embedding)
    assert model.config.tied_embeddings
    assert not model.config.scaled_embeddings
    assert all(m.bias is not None for m in block.modules() if isinstance(m, nn.Linear | nn.LayerNorm))


def test_the_llama_preset_has_the_parts_of_llama():
    model = GPT(ModelConfig.llama(V, d_model=16))
    block = model.blocks[0]
    assert isinstance(block.attention_norm, nn.RMSNorm)
    assert isinstance(model.final_norm, nn.RMSNorm)
    assert block.pre_norm
    assert block.mlp.kind == "swiglu"
    assert "rotary_cos" in dict(model.named_buffers())
    assert not model.config.tied_embeddings
    assert not any("bias" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("preset", [ModelConfig.transformer_2017, ModelConfig.gpt2, ModelConfig.llama])
def test_presets_take_changes_and_refuse_unknown_fields(preset):
    assert preset(V, n_layers=7).n_layers == 7
    assert preset(V, n_layers=7) == replace(preset(V), n_layers=7)
    with pytest.raises(TypeError, match="n_blocks"):
        preset(V, n_blocks=7)


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_part_names_the_choices(name):
    with pytest.raises(ValueError, match=f"{name}='best' is unknown: choose one of .*{CHOICES[name][-1]}"):
        ModelConfig(V, **{name: "best"})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf])
def test_a_size_that_is_no_number_of_parts_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be at least 1"):
        ModelConfig(**(dict(vocab_size=V) | {name: value}))


@pytest.mark.parametrize("scaling", [None, RotaryScaling(factor=32.0)])
def test_a_configuration_comes_back_from_json_and_an_older_one_has_the_defaults(scaling):
    config = ModelConfig(V, d_head=6, rotary_scaling=scaling)
    saved = json.loads(json.dumps(asdict(config)))
    assert ModelConfig(**saved) == config
    assert hash(ModelConfig(**saved)) == hash(config)
    del saved["d_head"], saved["rotary_scaling"]
    assert ModelConfig(**saved) == ModelConfig(V)
    assert ModelConfig(V).head_width == 128 // 4


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_outside_its_range_is_refused(dropout):
    with pytest.raises(ValueError, match=rf"dropout={dropout}: must be in \[0, 1\)"):
        ModelConfig(V, dropout=dropout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(d_model=20, n_heads=3, positions="none"), "d_model=20 does not split into n_heads=3"),
        (dict(n_kv_heads=3), "n_kv_heads=3"),
        (dict(d_model=12), "d_head=3 is odd"),
        (dict(d_head=5), "d_head=5 is odd"),
        (dict(d_model=15, n_heads=3, positions="sinusoidal"), "d_model=15 is odd"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_model(**options)


# --- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize(("mlp", "activation"), [("relu", "relu"), ("gelu", "gelu")])
def test_block_equals_torch_encoder_layer(norm_position, mlp, activation):
    config = ModelConfig(
        V, d_model=16, n_heads=4, d_ff=24, norm="layer", norm_position=norm_position,
        norm_eps=1e-3, positions="none", mlp=mlp, bias=True,
    )  # fmt: skip
    ours = randomize(Block(config))
    theirs = nn.TransformerEncoderLayer(
        16, 4, dim_feedforward=24, dropout=0.0, activation=activation, layer_norm_eps=1e-3,
        batch_first=True, norm_first=norm_position == "pre", dtype=torch.float64,
    ).eval()  # fmt: skip
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.up.",
        "linear2.": "mlp.down.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    state = ours.state_dict()
    theirs.load_state_dict(
        {
            theirs_ + kind: state[ours_ + kind]
            for theirs_, ours_ in names.items()
            for kind in ("weight", "bias")
        }
    )
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x, src_mask=~causal_mask(6))
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)
        everything = torch.ones(6, 6, dtype=torch.bool)
        torch.testing.assert_close(ours(x, mask=everything), theirs(x), rtol=0, atol=1e-12)


def activation_by_hand(kind, a):
    if kind == "relu":
        return max(a, 0.0)
    if kind == "gelu":
        return a * 0.5 * (1 + math.erf(a / math.sqrt(2)))
    if kind == "gelu_tanh":
        return 0.5 * a * (1 + math.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    if kind == "relu_squared":
        return max(a, 0.0) ** 2
    return a / (1 + math.exp(-a))  # SiLU


@pytest.mark.parametrize("kind", CHOICES["mlp"])
def test_mlp_equals_its_formula(kind):
    mlp = randomize(MLP(ModelConfig(V, d_model=4, n_heads=1, d_ff=6, mlp=kind, bias=True)))
    x = torch.randn(4, dtype=torch.float64)
    with torch.no_grad():
        hidden = mlp.up.weight @ x + mlp.up.bias
        active = torch.tensor([activation_by_hand(kind, a.item()) for a in hidden[:6]], dtype=torch.float64)
        if kind == "swiglu":
            active = active * hidden[6:]
        expected = mlp.down.weight @ active + mlp.down.bias
        torch.testing.assert_close(mlp(x), expected, rtol=0, atol=1e-12)


def test_every_activation_can_be_chosen():
    assert {*ACTIVATIONS, "swiglu"} == set(CHOICES["mlp"])


@pytest.mark.parametrize("kind", CHOICES["norm"])
def test_norm_equals_its_formula(kind):
    norm = randomize(make_norm(ModelConfig(V, d_model=8, norm=kind, norm_eps=0.1, bias=True)))
    x = torch.randn(8, dtype=torch.float64)
    centred = x - x.mean() if kind == "layer" else x
    with torch.no_grad():
        expected = norm.weight * centred / math.sqrt((centred**2).mean() + 0.1)
        expected = expected + norm.bias if kind == "layer" else expected
        torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-12)


def test_scaled_embeddings_multiply_tokens_and_not_positions():
    plain = small_model(positions="sinusoidal")
    scaled = small_model(positions="sinusoidal", scaled_embeddings=True)
    token_ids = some_tokens()
    with torch.no_grad():
        tokens = plain.token_embedding(token_ids)
        torch.testing.assert_close(plain.embed(token_ids)[0], tokens + plain.position_table[:8])
        torch.testing.assert_close(scaled.embed(token_ids)[0], 4 * tokens + plain.position_table[:8])


def test_new_weights_have_the_spread_of_gpt2():
    torch.manual_seed(0)
    model = GPT(ModelConfig.gpt2(500, d_model=128, n_layers=8))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            expected = 0.02 / math.sqrt(16) if residual else 0.02
            assert abs(parameter.std().item() / expected - 1) < 0.05, name


# --- the whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm_position", CHOICES["norm_position"])
@pytest.mark.parametrize("norm", CHOICES["norm"])
@pytest.mark.parametrize(
    ("positions", "mlp"), [("learned", "gelu"), ("rotary", "swiglu"), ("sinusoidal", "relu")]
)
def test_parameter_count_equals_the_closed_form(positions, mlp, norm, norm_position, bias, tied):
    C, T, L, H, G, F = 16, 12, 3, 4, 2, 40
    sizes = dict(context_length=T, d_model=C, n_heads=H, n_kv_heads=G, n_layers=L, d_ff=F)
    parts = dict(norm=norm, norm_position=norm_position, positions=positions, mlp=mlp, bias=bias)
    model = GPT(ModelConfig(V, **sizes, **parts, tied_embeddings=tied))
    D = C // H
    b = 1 if bias else 0
    attention = (C + b) * (H + 2 * G) * D + (C + b) * C
    up = 2 * F if mlp == "swiglu" else F
    feed_forward = (C + b) * up + (F + b) * C
    one_norm = C * (1 + b) if norm == "layer" else C
    embeddings = V * C * (1 if tied else 2) + (T * C if positions == "learned" else 0)
    final_norm = one_norm if norm_position == "pre" else 0
    assert model.n_parameters() == embeddings + L * (attention + feed_forward + 2 * one_norm) + final_norm


@pytest.mark.parametrize("tied", [False, True])
def test_parameter_count_equals_transformers_gpt2(tied):
    ours = ModelConfig.gpt2(V, context_length=12, d_model=16, n_layers=3, tied_embeddings=tied)
    theirs = GPT2Config(
        vocab_size=V, n_positions=12, n_embd=16, n_layer=3, n_head=4, tie_word_embeddings=tied
    )
    assert GPT(ours).n_parameters() == GPT2LMHeadModel(theirs).num_parameters()


@pytest.mark.parametrize("tied", [False, True])
def test_parameter_count_equals_transformers_llama(tied):
    ours = ModelConfig.llama(V, d_model=16, n_kv_heads=2, n_layers=3, d_ff=40, tied_embeddings=tied)
    theirs = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    assert GPT(ours).n_parameters() == LlamaForCausalLM(theirs).num_parameters()


def test_published_sizes_give_the_published_parameter_counts():
    with torch.device("meta"):  # shapes only, no memory
        gpt2 = GPT(ModelConfig.gpt2(50257, context_length=1024, d_model=768, n_heads=12, n_layers=12))
        llama2 = GPT(ModelConfig.llama(32000, d_model=4096, n_heads=32, n_layers=32, d_ff=11008))
        llama32 = GPT(
            ModelConfig.llama(
                128256, d_model=2048, n_heads=32, n_kv_heads=8, n_layers=16, d_ff=8192, tied_embeddings=True
            )
        )
        shape = dict(d_model=1024, n_heads=16, n_kv_heads=8, d_head=128, n_layers=28, d_ff=3072)
        qwen3 = GPT(ModelConfig.llama(151936, **shape, qk_norm=True, tied_embeddings=True))
    assert gpt2.n_parameters() == 124_439_808
    assert llama2.n_parameters() == 6_738_415_616
    assert llama32.n_parameters() == 1_235_814_400  # the cards of Llama-3.2-1B and Qwen3-0.6B
    assert qwen3.n_parameters() == 596_049_920


def test_tied_embeddings_are_one_tensor():
    tied, untied = small_model(tied_embeddings=True), small_model(tied_embeddings=False)
    assert tied.unembedding.weight is tied.token_embedding.weight
    assert untied.unembedding.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
    assert untied.n_parameters() - tied.n_parameters() == V * 16


@pytest.mark.parametrize("chunks", [[8], [1] * 8, [3, 4, 1], [7, 1], [1, 7]])
@pytest.mark.parametrize("n_kv_heads", [None, 2])
@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_cached_logits_equal_uncached_ones(positions, n_kv_heads, chunks):
    model = small_model(positions=positions, n_kv_heads=n_kv_heads, qk_norm=True)
    token_ids = some_tokens()
    caches = model.make_caches(batch_size=2)
    with torch.no_grad():
        parts = [model(part, caches=caches) for part in token_ids.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(token_ids), rtol=0, atol=1e-12)
    assert [cache.length for cache in caches] == [8, 8]


def test_caches_follow_the_dtype_of_the_model():
    model = small_model()
    assert model.make_caches(1)[0].k.dtype == torch.float64
    assert model.bfloat16().make_caches(1)[0].v.dtype == torch.bfloat16


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_the_last_of_one_layer_sees_order_only_through_positions(positions):
    model = small_model(positions=positions, n_layers=1)
    token_ids = torch.tensor([[1, 2, 3, 4, 5]])
    shuffled = torch.tensor([[3, 1, 4, 2, 5]])
    with torch.no_grad():
        difference = (model(token_ids) - model(shuffled))[:, -1].abs().max().item()
    assert difference < 1e-12 if positions == "none" else difference > 1e-4


def test_packed_documents_get_the_logits_they_get_alone():
    model = small_model(positions="rotary")  # only distances count, so a later start changes nothing
    token_ids = torch.tensor([[3, 4, 0, 5, 6, 7, 0, 8]])
    with torch.no_grad():
        packed = model(token_ids, mask=document_mask(token_ids, end_id=0))
        alone = [model(part) for part in token_ids.split([3, 4, 1], dim=1)]
        unmasked = model(token_ids)
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=0, atol=1e-6)
    assert (packed - unmasked)[:, 3:].abs().max() > 1e-3


def test_a_mask_replaces_the_causal_one():
    model = small_model()
    token_ids = some_tokens()
    changed = token_ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    everything = torch.ones(8, 8, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids, mask=causal_mask(8)), model(token_ids))
        difference = model(token_ids, mask=everything) - model(changed, mask=everything)
    assert (difference.abs().amax(dim=(0, 2)) > 1e-6).all()


@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize("n_kv_heads", [1, 4])
def test_attention_maps_are_causal_distributions(positions, n_kv_heads):
    model = small_model(positions=positions, n_layers=3, n_kv_heads=n_kv_heads)
    maps = model.attention_maps(some_tokens(B=2, T=7))
    assert len(maps) == 3
    for weights in maps:
        assert weights.shape == (2, 4, 7, 7)
        assert (weights[..., ~causal_mask(7)] == 0).all()
        torch.testing.assert_close(
            weights.sum(-1), torch.ones(2, 4, 7, dtype=torch.float64), rtol=0, atol=1e-12
        )
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)


def test_attention_maps_are_the_weights_that_the_logits_are_made_with():
    model = small_model(n_layers=1, positions="none")
    token_ids = some_tokens(B=1, T=6)
    (weights,) = model.attention_maps(token_ids)
    block = model.blocks[0]
    with torch.no_grad():
        x = model.token_embedding(token_ids)
        v = block.attention.qkv(block.attention_norm(x))[..., 32:].view(1, 6, 4, 4)  # (B, T, H, D)
        mixed = torch.einsum("bhts,bshd->bthd", weights, v).flatten(2)
        x = x + block.attention.out(mixed)
        x = x + block.mlp(block.mlp_norm(x))
        expected = model.unembedding(model.final_norm(x))
        torch.testing.assert_close(model(token_ids), expected, rtol=0, atol=1e-12)


def test_dropout_works_in_training_only():
    model = small_model(dropout=0.3)
    token_ids = some_tokens()
    with torch.no_grad():
        assert torch.equal(model(token_ids), model(token_ids))
        model.train()
        assert not torch.allclose(model(token_ids), model(token_ids))


def test_every_parameter_gets_a_gradient():
    model = small_model(positions="learned", qk_norm=True, bias=True, norm="layer", mlp="gelu")
    model(some_tokens()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_more_tokens_than_the_context_name_both_numbers(positions):
    model = small_model(positions=positions)
    model(some_tokens(T=12))
    with pytest.raises(ValueError, match=r"13 tokens do not fit into the context of 12: shorten the input"):
        model(some_tokens(T=13))
    caches = model.make_caches(2)
    with torch.no_grad():
        model(some_tokens(T=10), caches=caches)
        with pytest.raises(ValueError, match=r"13 tokens do not fit into the context of 12"):
            model(some_tokens(T=3), caches=caches)
