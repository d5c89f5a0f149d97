"""Weights from and to transformers: same logits, nothing lost, and clear refusals."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llmcourse.convert import config_from_transformers, from_transformers, to_transformers
from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import RotaryScaling
from llmcourse.pretrained import course_stages, load_course_model, load_model, save_model
from llmcourse.tokenizer import BPETokenizer

V = 61
LIMIT = 1e-4  # largest logit difference in float32

GPT2_CONFIGS = {
    "plain": {},
    "untied": dict(tie_word_embeddings=False),
    "other-eps": dict(layer_norm_epsilon=0.1),
    "narrow-mlp-one-head": dict(n_inner=24, n_head=1),
}
LLAMA_CONFIGS = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "grouped": dict(num_key_value_heads=2),
    "multi-query": dict(num_key_value_heads=1),
    "other-eps": dict(rms_norm_eps=0.1),
    "other-theta": dict(rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
    "all": dict(
        tie_word_embeddings=True,
        num_key_value_heads=2,
        rms_norm_eps=0.1,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
}
QWEN3_CONFIGS = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "narrow-heads": dict(head_dim=4, num_key_value_heads=1),
    "plain-heads": dict(head_dim=8),
    "other-eps": dict(rms_norm_eps=0.1),
    "five-heads": dict(num_attention_heads=5, num_key_value_heads=5),
}
FAMILIES = {"gpt2": GPT2_CONFIGS, "llama": LLAMA_CONFIGS, "qwen3": QWEN3_CONFIGS}
ALL_CONFIGS = [(family, name) for family, names in FAMILIES.items() for name in names]

# All fields of config.json of meta-llama/Llama-3.2-1B and Qwen/Qwen3-0.6B, as the hub has them.
PUBLISHED = {
    "llama": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0,
        bos_token_id=128000, eos_token_id=128001, head_dim=64, hidden_act="silu", hidden_size=2048,
        initializer_range=0.02, intermediate_size=8192, max_position_embeddings=131072, mlp_bias=False,
        model_type="llama", num_attention_heads=32, num_hidden_layers=16, num_key_value_heads=8,
        pretraining_tp=1, rms_norm_eps=1e-5,
        rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
                          original_max_position_embeddings=8192, rope_type="llama3"),
        rope_theta=500000.0, tie_word_embeddings=True, torch_dtype="bfloat16", use_cache=True,
        vocab_size=128256,
    ),
    "qwen3": dict(
        architectures=["Qwen3ForCausalLM"], attention_bias=False, attention_dropout=0.0,
        bos_token_id=151643, eos_token_id=151645, head_dim=128, hidden_act="silu", hidden_size=1024,
        initializer_range=0.02, intermediate_size=3072, max_position_embeddings=40960,
        max_window_layers=28, model_type="qwen3", num_attention_heads=16, num_hidden_layers=28,
        num_key_value_heads=8, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1000000,
        sliding_window=None, tie_word_embeddings=True, torch_dtype="bfloat16", use_cache=True,
        use_sliding_window=False, vocab_size=151936,
    ),
}  # fmt: skip
SMALLER = {  # the same in all that is not size
    "llama": dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2),
    "qwen3": dict(hidden_size=32, intermediate_size=96, num_attention_heads=2, num_key_value_heads=1),
}
SMALLER = {family: sizes | dict(num_hidden_layers=2, vocab_size=V, bos_token_id=1, eos_token_id=2)
           for family, sizes in SMALLER.items()}  # fmt: skip
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}


def randomize(model, seed=0):
    """Give every weight, biases and gains too, a size at which a mistake shows in the logits."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        gain = parameter.dim() == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if gain else 0.0, std=0.2)
    return model.eval()


def their_model(family, name="plain", **options):
    if family == "gpt2":
        shape = dict(vocab_size=V, n_positions=32, n_embd=32, n_layer=2, n_head=4)
        options = shape | dict(bos_token_id=None, eos_token_id=None) | GPT2_CONFIGS[name] | options
        return randomize(GPT2LMHeadModel(GPT2Config(**options)))
    shape = dict(vocab_size=V, max_position_embeddings=32, hidden_size=32, intermediate_size=56)
    shape |= dict(num_hidden_layers=2, num_attention_heads=4, bos_token_id=None, eos_token_id=None)
    shape |= dict(num_key_value_heads=4, head_dim=16) if family == "qwen3" else {}
    config, kind = KINDS[family]
    return randomize(kind(config(**(shape | FAMILIES[family][name] | options))))


def published_model(family, **changes):
    """A model with all published fields, but smaller; its weights are random."""
    config, kind = KINDS[family]
    fields = copy.deepcopy(PUBLISHED[family] | SMALLER[family] | changes)
    if family == "llama" and "head_dim" not in changes:
        fields["head_dim"] = 16  # of a narrower model; 64 elsewhere
    return randomize(kind(config(**fields)).float())


def some_tokens(B=3, T=32):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))


def largest_difference(ours, theirs):
    with torch.no_grad():
        return (ours(some_tokens()) - theirs(some_tokens()).logits).abs().max().item()


def assert_same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# --- transformers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), ALL_CONFIGS)
def test_logits_of_transformers_models_are_ours(family, name):
    theirs = their_model(family, name)
    assert theirs(some_tokens()).logits.std() > 0.5  # a difference would show
    assert largest_difference(from_transformers(theirs), theirs) < LIMIT


@pytest.mark.parametrize(("family", "name"), ALL_CONFIGS)
def test_from_transformers_and_back_loses_nothing(family, name):
    theirs = their_model(family, name)
    ours = from_transformers(theirs)
    back = to_transformers(ours)
    assert type(back) is type(theirs)
    assert_same_weights(back, theirs)
    with torch.no_grad():
        assert torch.equal(back(some_tokens()).logits, theirs(some_tokens()).logits)
    assert config_from_transformers(back.config) == replace(ours.config, d_ff=ours.config.hidden_width)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig.gpt2(V),
        ModelConfig.gpt2(V, tied_embeddings=False, norm_eps=1e-2, d_ff=24),
        ModelConfig.gpt2(V, n_kv_heads=4),
        ModelConfig.llama(V),
        ModelConfig.llama(V, tied_embeddings=True, n_kv_heads=2, rotary_base=100.0, norm_eps=1e-2),
        ModelConfig(V, n_kv_heads=1),
    ],
    ids=["gpt2", "gpt2-changed", "gpt2-kv-heads-named", "llama", "llama-changed", "default"],
)
def test_to_transformers_and_back_loses_nothing(config):
    ours = randomize(GPT(replace(config, context_length=32, d_model=32, n_layers=2)))
    theirs = to_transformers(ours)
    assert largest_difference(ours, theirs) < LIMIT
    assert theirs.num_parameters() == ours.n_parameters()
    back = from_transformers(theirs)
    assert_same_weights(back, ours)
    with torch.no_grad():
        assert torch.equal(back(some_tokens()), ours(some_tokens()))


@pytest.mark.parametrize(
    "convert", [from_transformers, lambda model: to_transformers(from_transformers(model))]
)
def test_a_converted_model_has_weights_of_its_own(convert):
    theirs = their_model("gpt2")
    converted = convert(theirs)
    before = {name: tensor.clone() for name, tensor in converted.state_dict().items()}
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in converted.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_conversion_keeps_the_mode(training):
    ours = from_transformers(their_model("llama").train(training))
    assert ours.training == training
    assert to_transformers(ours).training == training


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_maps_equal_those_of_transformers(family):
    theirs = their_model(family)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        expected = theirs(some_tokens(), output_attentions=True).attentions
    for ours, weights in zip(from_transformers(theirs).attention_maps(some_tokens()), expected, strict=True):
        torch.testing.assert_close(ours, weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [str, lambda folder: folder], ids=["str", "Path"])
@pytest.mark.parametrize(("family", "name"), [("gpt2", "plain"), ("gpt2", "untied"), ("llama", "all")])
def test_a_folder_of_save_pretrained_is_read(tmp_path, family, name, kind):
    theirs = their_model(family, name)
    theirs.save_pretrained(tmp_path)
    ours = from_transformers(kind(tmp_path))
    assert not ours.training
    assert_same_weights(ours, from_transformers(theirs))


def test_half_precision_weights_are_read_into_float32():
    theirs = their_model("llama").bfloat16()
    ours = from_transformers(theirs)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert_same_weights(ours, from_transformers(theirs.float()))


@pytest.mark.parametrize(
    ("hf_config", "message"),
    [
        (GPTNeoXConfig(), "model_type='gpt_neox'"),
        (MistralConfig(), "model_type='mistral'"),
        (GPT2Config(activation_function="relu"), "activation_function='relu'"),
        (GPT2Config(scale_attn_weights=False), "scale_attn_weights=False"),
        (GPT2Config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx=True"),
        (GPT2Config(add_cross_attention=True), "add_cross_attention=True"),
        (LlamaConfig(hidden_act="gelu"), "hidden_act='gelu'"),
        (LlamaConfig(attention_bias=True), "attention_bias=True"),
        (LlamaConfig(mlp_bias=True), "mlp_bias=True"),
        (Qwen2Config(), "model_type='qwen2'"),
        (Qwen3Config(attention_bias=True), "attention_bias=True"),
        (Qwen3Config(hidden_act="gelu"), "hidden_act='gelu'"),
        (
            LlamaConfig(rope_parameters=dict(rope_type="default", partial_rotary_factor=0.5)),
            "partial_rotary_factor=0.5",
        ),
        (
            LlamaConfig(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
            "rope_type='linear'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_architectures_of_transformers_are_refused_by_name(hf_config, message):
    with pytest.raises(ValueError, match=message):
        config_from_transformers(hf_config)


def test_a_model_of_another_architecture_is_refused_by_name():
    shape = dict(vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    theirs = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, num_attention_heads=2))
    with pytest.raises(ValueError, match="model_type='gpt_neox': only 'gpt2', 'llama' and 'qwen3' can"):
        from_transformers(theirs)


def test_a_configuration_alone_is_refused_with_the_function_that_reads_it():
    with pytest.raises(ValueError, match=r"Qwen3Config has no weights.*config_from_transformers"):
        from_transformers(Qwen3Config())


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (ModelConfig.gpt2(V, norm_position="post"), ["norm_position='post' (not 'pre')"]),
        (ModelConfig.gpt2(V, mlp="gelu"), ["mlp='gelu' (not 'gelu_tanh')"]),
        (ModelConfig.gpt2(V, bias=False), ["bias=False (not True)"]),
        (ModelConfig.gpt2(V, n_kv_heads=2), ["n_kv_heads=2 (not n_heads=4)"]),
        (ModelConfig.gpt2(V, scaled_embeddings=True), ["scaled_embeddings=True (not False)"]),
        (ModelConfig.gpt2(V, qk_norm=True), ["qk_norm=True (not False)"]),
        (ModelConfig.gpt2(V, d_head=8), ["d_head=8 (not d_model / n_heads)"]),
        (ModelConfig.llama(V, n_heads=3, d_head=8), ["n_heads=3 (does not divide d_model=128)"]),
        (ModelConfig.llama(V, positions="none"), ["positions='none' (not 'rotary')"]),
        (ModelConfig.llama(V, bias=True), ["bias=True (not False)"]),
        (
            ModelConfig.transformer_2017(V),
            ["norm_position='post'", "positions='sinusoidal'", "mlp='relu'", "scaled_embeddings=True"],
        ),
    ],
)
def test_our_models_that_fit_neither_say_what_is_in_the_way(config, messages):
    with pytest.raises(ValueError, match=r"in the way of GPT-2: .*; in the way of Llama: ") as caught:
        to_transformers(GPT(replace(config, n_layers=1)))
    for message in messages:
        assert message in str(caught.value)


# --- today's small models ----------------------------------------------------------------------


def in_float64(theirs):
    """The same model, whose angles too are in float64: transformers multiplies positions in float32."""
    theirs = copy.deepcopy(theirs).double()
    rotary = theirs.model.rotary_emb

    def angles(x, position_ids):
        turns = position_ids[..., None].double() * rotary.exact
        turns = torch.cat([turns, turns], dim=-1)
        return turns.cos().float().double(), turns.sin().float().double()  # our tables are in float32

    scaling, config = RotaryScaling(32.0), theirs.config
    plain = config.rope_parameters["rope_theta"] ** (
        -torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    )
    rotary.exact = scaling.scale(plain) if config.rope_parameters["rope_type"] == "llama3" else plain
    torch.testing.assert_close(rotary.exact.float(), rotary.inv_freq.float(), rtol=1e-5, atol=0)
    rotary.forward = angles
    return theirs


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_fields_are_read(family):
    config = config_from_transformers(KINDS[family][0](**copy.deepcopy(PUBLISHED[family])))
    fields = PUBLISHED[family]
    assert (config.d_model, config.n_layers) == (fields["hidden_size"], fields["num_hidden_layers"])
    assert (config.n_heads, config.n_kv_heads) == (fields["num_attention_heads"], 8)
    assert config.head_width == fields["head_dim"]
    assert config.hidden_width == fields["intermediate_size"]
    assert config.norm_eps == fields["rms_norm_eps"]
    assert config.rotary_base == fields["rope_theta"]
    assert config.rotary_scaling == (RotaryScaling(32.0, 1.0, 4.0, 8192) if family == "llama" else None)
    assert config.qk_norm == (family == "qwen3")
    assert config.tied_embeddings
    assert (config.vocab_size, config.context_length) == (
        fields["vocab_size"],
        fields["max_position_embeddings"],
    )


@pytest.mark.parametrize("family", PUBLISHED)
@torch.no_grad()
def test_logits_of_published_models_are_ours_at_short_and_at_long_positions(family):
    theirs = published_model(family)
    ours = from_transformers(theirs, context_length=12_000)
    token_ids = torch.randint(V, (1, 600), generator=torch.Generator().manual_seed(0))
    expected = theirs(token_ids).logits
    assert expected.std() > 0.5  # a difference would show
    torch.testing.assert_close(ours(token_ids), expected, rtol=0, atol=LIMIT)

    places = torch.cat([torch.arange(300), torch.arange(9_000, 9_300)])  # far apart, beyond Llama's 8,192
    options = dict(position_ids=places[None], attention_mask=torch.ones_like(token_ids))
    expected, near = in_float64(theirs)(token_ids, **options).logits, expected
    assert (expected - near)[:, 300:].abs().max() > 0.01  # distance counts
    ours = ours.double()
    ours.rotary_cos, ours.rotary_sin = ours.rotary_cos[places], ours.rotary_sin[places]
    torch.testing.assert_close(ours(token_ids), expected, rtol=0, atol=LIMIT)


VALUES = [  # each field of a published configuration, alone, and what else a file may hold
    ("llama", dict(attention_bias=True)), ("llama", dict(mlp_bias=True)), ("llama", dict(hidden_act="gelu")),
    ("llama", dict(hidden_act="relu")), ("llama", dict(attention_dropout=0.3)), ("llama", dict(head_dim=8)),
    ("llama", dict(head_dim=32)), ("llama", dict(hidden_size=32)), ("llama", dict(intermediate_size=8)),
    ("llama", dict(max_position_embeddings=64)), ("llama", dict(num_attention_heads=8)),
    ("llama", dict(num_hidden_layers=1)), ("llama", dict(num_key_value_heads=1)),
    ("llama", dict(num_key_value_heads=None)), ("llama", dict(pretraining_tp=2)),
    ("llama", dict(rms_norm_eps=0.3)), ("llama", dict(rope_theta=100.0)), ("llama", dict(rope_scaling=None)),
    ("llama", dict(tie_word_embeddings=False)), ("llama", dict(vocab_size=80)), ("llama", dict(use_cache=False)),
    ("llama", dict(initializer_range=0.5)), ("llama", dict(bos_token_id=3)), ("llama", dict(pad_token_id=5)),
    ("llama", dict(sliding_window=4)), ("llama", dict(partial_rotary_factor=0.5)),
    ("llama", dict(layer_types=["full_attention", "sliding_attention"], sliding_window=4)),
    ("llama", dict(chunk_size_feed_forward=2)), ("llama", dict(attention_multiplier=3.0)),
    ("qwen3", dict(attention_bias=True)), ("qwen3", dict(hidden_act="gelu")), ("qwen3", dict(head_dim=8)),
    ("qwen3", dict(attention_dropout=0.3)), ("qwen3", dict(hidden_size=24)), ("qwen3", dict(rms_norm_eps=0.3)),
    ("qwen3", dict(num_key_value_heads=2)), ("qwen3", dict(num_key_value_heads=None)),
    ("qwen3", dict(rope_theta=100.0)), ("qwen3", dict(sliding_window=4)), ("qwen3", dict(max_window_layers=0)),
    ("qwen3", dict(use_sliding_window=True)), ("qwen3", dict(tie_word_embeddings=False)),
    ("qwen3", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    ("qwen3", dict(layer_types=["full_attention", "sliding_attention"])),
    ("qwen3", dict(partial_rotary_factor=0.5)), ("qwen3", dict(mlp_bias=True)),
    ("gpt2", dict(activation_function="gelu")), ("gpt2", dict(activation_function="silu")),
    ("gpt2", dict(attn_pdrop=0.5)), ("gpt2", dict(embd_pdrop=0.5)), ("gpt2", dict(resid_pdrop=0.0)),
    ("gpt2", dict(layer_norm_epsilon=0.3)), ("gpt2", dict(n_embd=16)), ("gpt2", dict(n_head=2)),
    ("gpt2", dict(n_inner=24)), ("gpt2", dict(n_layer=1)), ("gpt2", dict(n_positions=40)),
    ("gpt2", dict(reorder_and_upcast_attn=True)), ("gpt2", dict(scale_attn_weights=False)),
    ("gpt2", dict(scale_attn_by_inverse_layer_idx=True)), ("gpt2", dict(tie_word_embeddings=False)),
    ("gpt2", dict(add_cross_attention=True)), ("gpt2", dict(vocab_size=80)), ("gpt2", dict(summary_type="mean")),
]  # fmt: skip
ROPES = [
    *(dict(rope_type=kind, factor=2.0) for kind in ("linear", "dynamic", "yarn")),
    dict(rope_type="longrope", factor=2.0, short_factor=[1.0] * 8, long_factor=[2.0] * 8),
    dict(rope_type="proportional", partial_rotary_factor=0.5),
    dict(rope_type="default", factor=4.0),
    dict(rope_type="llama3", factor=0.5),
    *(dict(rope_type="llama3") | {name: value} for name, value in (
        ("factor", 2.0), ("low_freq_factor", 2.0), ("low_freq_factor", 5.0), ("high_freq_factor", 40.0),
        ("original_max_position_embeddings", 16), ("attention_factor", 2.0), ("partial_rotary_factor", 0.5),
    )),
]  # fmt: skip
ROPES = [
    PUBLISHED["llama"]["rope_scaling"] | dict(original_max_position_embeddings=512) | rope for rope in ROPES
]
VALUES += [("llama", dict(rope_scaling=rope)) for rope in ROPES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "change"), VALUES, ids=lambda value: str(value)[:60])
@torch.no_grad()
def test_each_field_is_read_or_means_nothing_or_is_refused_by_name(family, change):
    theirs, refusal = (
        their_model(family, **change) if family == "gpt2" else published_model(family, **change),
        "",
    )
    try:
        ours = from_transformers(theirs)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert any(f"{field}=" in refusal for field in [*change, *(change.get("rope_scaling") or {})]), (
            refusal
        )
        return
    torch.testing.assert_close(ours(some_tokens()), theirs(some_tokens()).logits, rtol=0, atol=LIMIT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(use_sliding_window=True, sliding_window=4, max_window_layers=1), "sliding_window=4 .not None"),
        (dict(rope_scaling=dict(rope_type="yarn", factor=4.0)), "rope_type='yarn'"),
        (dict(per_layer_config={1: {"intermediate_size": 8}}), "per_layer_config="),
    ],
)
def test_long_context_settings_of_qwen3_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_transformers(Qwen3Config(**(PUBLISHED["qwen3"] | change)))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_ends_that_differ_are_untied_whatever_the_configuration_says(kind):
    """As after a merge of adapters on the output (huggingface/peft#2972). Oracle: transformers' logits."""
    if kind == "gpt2":
        theirs = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    else:
        shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
        theirs = LlamaForCausalLM(
            LlamaConfig(vocab_size=V, max_position_embeddings=8, tie_word_embeddings=True, **shape)
        )
    theirs.lm_head.weight = nn.Parameter(torch.randn(V, 16))
    ids, ours = torch.arange(8)[None], from_transformers(theirs.eval())
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=LIMIT)
    assert not ours.config.tied_embeddings


@pytest.mark.parametrize("scaling", [None, RotaryScaling(16.0, 0.5, 8.0, 16)])
@pytest.mark.parametrize("options", [{}, dict(qk_norm=True), dict(qk_norm=True, n_heads=3), dict(d_head=6)])
@pytest.mark.parametrize("tied", [False, True])
def test_our_heads_and_positions_go_to_transformers_and_back(options, scaling, tied):
    shape = dict(context_length=64, d_model=32, n_layers=2, n_kv_heads=1, d_head=12) | options
    ours = randomize(GPT(ModelConfig.llama(V, **shape, rotary_scaling=scaling, tied_embeddings=tied)))
    theirs = to_transformers(ours)
    assert type(theirs) is (Qwen3ForCausalLM if shape.get("qk_norm") else LlamaForCausalLM)
    assert largest_difference(ours, theirs) < LIMIT
    back = from_transformers(theirs)
    assert_same_weights(back, ours)
    assert back.config == replace(ours.config, d_ff=ours.config.hidden_width)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_shorter_context_reads_the_same_and_a_longer_one_is_refused(family):
    theirs = their_model(family)
    shorter = from_transformers(theirs, context_length=9)
    assert torch.equal(shorter(some_tokens(T=9)), from_transformers(theirs)(some_tokens(T=9)))
    with pytest.raises(ValueError, match="context_length=33: the model has 32 positions"):
        from_transformers(theirs, context_length=33)


def test_weights_that_are_missing_or_unknown_are_named():
    config = their_model("llama").config
    with pytest.raises(
        ValueError, match=r"LlamaForSequenceClassification has other weights .*lm_head.weight"
    ):
        from_transformers(LlamaForSequenceClassification(config))
    with pytest.raises(ValueError, match=r"GPT2Model has other weights .*; give a causal language model"):
        from_transformers(GPT2Model(their_model("gpt2").config))
    adapted = their_model("llama")
    adapted.model.layers[0].self_attn.q_proj.lora_A = nn.Linear(32, 2)
    with pytest.raises(ValueError, match=r"q_proj.lora_A.bias, .* without adapters"):
        from_transformers(adapted)


# --- our own folders ---------------------------------------------------------------------------


def tiny_tokenizer(n_merges=4):
    return BPETokenizer.from_merges([(97 + i, 98 + i) for i in range(n_merges)])


def our_model(**options):
    shape = dict(vocab_size=tiny_tokenizer().vocab_size, context_length=16, d_model=16, n_layers=2)
    return randomize(GPT(ModelConfig(**(shape | options))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        dict(tied_embeddings=True),
        dict(tied_embeddings=False, n_kv_heads=2, d_ff=20, rotary_base=300.0),
        dict(norm="layer", positions="learned", mlp="gelu", bias=True, qk_norm=True, dropout=0.1),
        dict(norm="layer", norm_position="post", positions="sinusoidal", scaled_embeddings=True),
    ],
)
def test_a_saved_model_comes_back_as_it_was(tmp_path, options, dtype):
    model, tokenizer = our_model(**options).train(), tiny_tokenizer()
    save_model(tmp_path / "new" / "folder", model, tokenizer, dtype)
    loaded, loaded_tokenizer = load_model(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(dtype).float()), name
    assert (loaded.unembedding.weight is loaded.token_embedding.weight) == model.config.tied_embeddings
    text = "abcdef, abba: été"
    assert loaded_tokenizer.encode(text) == tokenizer.encode(text)
    assert loaded_tokenizer.vocab_size == tokenizer.vocab_size
    if dtype == torch.float32:
        token_ids = torch.tensor([tokenizer.encode(text)[:16]])
        with torch.no_grad():
            assert torch.equal(loaded(token_ids), model.eval()(token_ids))


def test_saving_keeps_tied_weights_once_and_in_half_precision(tmp_path):
    model = our_model()
    save_model(tmp_path, model, tiny_tokenizer())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in tensors.values()) == model.n_parameters()
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, missing):
    save_model(tmp_path, our_model(), tiny_tokenizer())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        load_model(tmp_path)


def test_an_empty_or_absent_folder_is_not_a_model(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            FileNotFoundError, match=r"holds no config.json: it is not a folder of save_model"
        ):
            load_model(folder)


def test_a_tokenizer_of_another_size_is_refused_with_both_sizes(tmp_path):
    model, other = our_model(), tiny_tokenizer(n_merges=9)
    save_model(tmp_path, model, tiny_tokenizer())
    other.save(tmp_path / "tokenizer.json")
    message = (
        f"the tokenizer has {other.vocab_size} tokens and the model {model.config.vocab_size}; .*one run"
    )
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_course_stages_are_the_folders_under_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("llmcourse.pretrained.course_data", lambda: tmp_path)
    assert course_stages() == []
    model = our_model()
    save_model(tmp_path / "checkpoints" / "pretrained", model, tiny_tokenizer(), torch.float32)
    shutil.copytree(tmp_path / "checkpoints" / "pretrained", tmp_path / "checkpoints" / "chat")
    assert course_stages() == ["chat", "pretrained"]
    assert_same_weights(load_course_model()[0], model)
    assert_same_weights(load_course_model("chat")[0], model)
    with pytest.raises(
        ValueError, match=r"stage='base' is not shipped: choose one of \['chat', 'pretrained'\]"
    ):
        load_course_model("base")
