"""Weights from and to transformers: same logits, nothing lost, and clear refusals."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
)

from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import (
    config_from_transformers,
    course_stages,
    from_transformers,
    load_course_model,
    load_model,
    save_model,
    to_transformers,
)
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
ALL_CONFIGS = [("gpt2", name) for name in GPT2_CONFIGS] + [("llama", name) for name in LLAMA_CONFIGS]


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
    return randomize(LlamaForCausalLM(LlamaConfig(**(shape | LLAMA_CONFIGS[name] | options))))


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


@pytest.mark.parametrize("family", ["gpt2", "llama"])
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
        (LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=32), "head_dim=32"),
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
    with pytest.raises(ValueError, match="model_type='gpt_neox': only 'gpt2' and 'llama' can be converted"):
        from_transformers(theirs)


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (ModelConfig.gpt2(V, norm_position="post"), ["norm_position='post' (not 'pre')"]),
        (ModelConfig.gpt2(V, mlp="gelu"), ["mlp='gelu' (not 'gelu_tanh')"]),
        (ModelConfig.gpt2(V, bias=False), ["bias=False (not True)"]),
        (ModelConfig.gpt2(V, n_kv_heads=2), ["n_kv_heads=2 (not n_heads=4)"]),
        (ModelConfig.gpt2(V, scaled_embeddings=True), ["scaled_embeddings=True (not False)"]),
        (ModelConfig.llama(V, qk_norm=True), ["qk_norm=True (not False)"]),
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
