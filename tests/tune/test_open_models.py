"""Open models: parameters as in transformers' classes, caches as their tensors, choices by each need."""

import csv
from dataclasses import fields, replace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    WhisperForConditionalGeneration,
)

from llmcourse.compress.rounding import quantize_model
from llmcourse.convert import to_transformers
from llmcourse.data.manifest import course_data
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import PackedLinear, Scheme
from llmcourse.tune import open_models
from llmcourse.tune.choose import Need, choose, memory_bytes, reasons_against, token_seconds
from llmcourse.tune.model_memory import (
    bytes_per_token,
    cache_bytes,
    measure_bandwidth,
    training_bytes,
    weight_bytes,
)
from llmcourse.tune.open_models import OpenModel, as_config, parameter_parts, read_models

MODELS = {model.short_name: model for model in read_models()}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))


def library_config(model):
    """The configuration of transformers with these sizes, by its own names."""
    width, layers = model.d_model, model.decoder_layers
    if model.model_type == "gpt2":
        sizes = dict(n_embd=width, n_layer=layers, n_head=model.heads, n_inner=model.d_ff)
        sizes |= dict(n_positions=model.positions)
    elif model.task in ("text", "encoder"):
        sizes = dict(
            hidden_size=width,
            num_hidden_layers=layers or model.encoder_layers,
            num_attention_heads=model.heads,
            intermediate_size=model.d_ff,
            max_position_embeddings=model.positions,
            tie_word_embeddings=model.tied,
        )
        if model.task == "text":
            sizes |= dict(num_key_value_heads=model.kv_heads, head_dim=model.head_dim)
        if model.model_type == "xlm-roberta":
            sizes |= dict(type_vocab_size=1)
    else:
        sizes = dict(d_model=width, encoder_layers=model.encoder_layers, decoder_layers=layers)
        sizes |= {f"{side}_attention_heads": model.heads for side in ("encoder", "decoder")}
        sizes |= {f"{side}_ffn_dim": model.d_ff for side in ("encoder", "decoder")}
        if model.model_type == "whisper":
            sizes |= dict(max_target_positions=model.positions, max_source_positions=model.source_positions)
            sizes |= dict(num_mel_bins=model.mel_bins, pad_token_id=0, decoder_start_token_id=0)
        else:
            sizes |= dict(max_position_embeddings=model.positions)
        if model.model_type == "marian":
            sizes |= dict.fromkeys(("pad_token_id", "decoder_start_token_id"), model.vocabulary - 1)
            sizes |= dict(decoder_vocab_size=model.vocabulary)
    return AutoConfig.for_model(model.model_type, vocab_size=model.vocabulary, **sizes)


def library_model(model, device="meta"):
    config = library_config(model)
    kinds = {"text": AutoModelForCausalLM, "encoder": AutoModel, "translation": AutoModelForSeq2SeqLM}
    with torch.device(device):
        if model.task == "speech":
            return WhisperForConditionalGeneration(config)
        return kinds[model.task].from_config(config)


SMALL = dict(
    d_model=32, heads=4, kv_heads=4, head_dim=8, d_ff=48, vocabulary=50, positions=24, encoder_layers=0
)


def small(model_type, **changes):
    """A model of this family with a few thousand weights."""
    model = next(m for m in MODELS.values() if m.model_type == model_type)
    sizes = SMALL | dict(decoder_layers=2 if model.decoder_layers else 0)
    sizes |= dict(encoder_layers=3 if model.encoder_layers else 0)
    if model.model_type == "whisper":
        sizes |= dict(source_positions=12, mel_bins=5)
    return replace(model, **(sizes | changes))


# ---- parameters -----------------------------------------------------------------------------


@every_model
def test_parameters_are_those_of_the_class_in_transformers(model):
    assert sum(parameter_parts(model).values()) == sum(p.numel() for p in library_model(model).parameters())


@pytest.mark.parametrize(
    "model",
    [
        small("gpt2"),
        small("llama", kv_heads=2, tied=False),
        small("qwen2", kv_heads=1, d_ff=40),
        small("qwen3", head_dim=16, kv_heads=2, tied=False),
        small("bert", encoder_layers=1),
        small("xlm-roberta"),
        small("marian", encoder_layers=1, decoder_layers=4),
        small("m2m_100"),
        small("whisper", encoder_layers=4, mel_bins=7),
    ],
    ids=lambda model: model.model_type,
)
def test_parameters_of_other_sizes_too(model):
    """Sizes that no row has: heads wider than C / H, few keys, stacks of unequal height."""
    built = library_model(model)
    assert sum(parameter_parts(model).values()) == sum(p.numel() for p in built.parameters())
    layers = [p for n, p in built.named_parameters() if ".layers." in n or ".layer." in n or ".h." in n]
    assert parameter_parts(model)["matrices"] == sum(p.numel() for p in layers if p.dim() == 2)


def test_only_a_decoder_becomes_a_configuration_of_ours():
    with pytest.raises(ValueError, match="is a whisper"):
        as_config(MODELS["whisper-tiny"])


# ---- bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SmolLM2-360M", "xlm-roberta-base", "whisper-small"])
def test_bytes_of_floats_are_those_of_the_tensors(name):
    built = library_model(MODELS[name])
    for precision, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        assert weight_bytes(MODELS[name], precision) == sum(p.nbytes for p in built.to(dtype).parameters())


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
def test_bytes_of_rounded_weights_are_those_of_packed_ones(precision, bits):
    """The course's own layers, whose buffers have the bytes; what is not packed counts two bytes a weight."""
    config = ModelConfig.llama(
        100, context_length=32, d_model=64, n_heads=4, n_layers=2, d_ff=128, tied_embeddings=True
    )
    packed = quantize_model(GPT(config), Scheme(bits))
    layers = [module for module in packed.modules() if isinstance(module, PackedLinear)]
    stored = sum(buffer.nbytes for layer in layers for buffer in layer.buffers())
    assert len(layers) == 8
    rest = sum(p.numel() for p in packed.parameters())
    model = small(
        "llama", d_model=64, heads=4, kv_heads=4, head_dim=16, d_ff=128, vocabulary=100, decoder_layers=2
    )
    assert weight_bytes(model, precision) == stored + 2 * rest


@pytest.mark.parametrize(
    "model", [small("gpt2"), small("llama", kv_heads=2), small("qwen3", kv_heads=1, head_dim=16)]
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_cache_of_a_decoder_is_that_of_transformers(model, batch_size):
    built = library_model(model, "cpu").eval()
    with torch.no_grad():
        kept = built(torch.ones(batch_size, 9, dtype=torch.long), use_cache=True).past_key_values
    tensors = [tensor for layer in kept.layers for tensor in (layer.keys, layer.values)]
    assert cache_bytes(model, 9, batch_size, number_bytes=4) == sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("model_type", ["marian", "m2m_100", "whisper"])
def test_the_cache_of_a_pair_has_the_source_as_well(model_type):
    model = small(model_type)
    built = library_model(model, "cpu").eval()
    source = torch.ones(2, 7, dtype=torch.long)
    if model_type == "whisper":
        source = torch.ones(2, model.mel_bins, 2 * model.source_positions)
    with torch.no_grad():
        kept = built(
            source, decoder_input_ids=torch.ones(2, 7, dtype=torch.long), use_cache=True
        ).past_key_values
    layers = [*kept.self_attention_cache.layers, *kept.cross_attention_cache.layers]
    tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
    assert cache_bytes(model, 7, 2, number_bytes=4) == sum(t.nbytes for t in tensors)


def test_an_encoder_keeps_nothing_and_writes_nothing():
    assert cache_bytes(MODELS["bert-base-uncased"], 512) == 0
    with pytest.raises(ValueError, match="is an encoder"):
        bytes_per_token(MODELS["bert-base-uncased"])


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="reads at most 1024"):
        cache_bytes(MODELS["gpt2"], 1025)
    with pytest.raises(ValueError, match="tokens=0"):
        cache_bytes(MODELS["gpt2"], 0)
    with pytest.raises(ValueError, match="choose one of"):
        weight_bytes(MODELS["gpt2"], "fp16")


def test_shared_heads_make_the_cache_smaller_in_proportion():
    model = MODELS["Qwen2.5-3B-Instruct"]
    alone = replace(model, kv_heads=model.heads)
    assert cache_bytes(alone, 100) == 8 * cache_bytes(model, 100)


def test_training_takes_sixteen_bytes_a_parameter_and_the_activations():
    found = training_bytes(MODELS["gpt2"], batch_size=2, tokens=128)
    assert found["weights and states"] == 16 * 124_439_808
    assert training_bytes(MODELS["gpt2"], 4, 128)["activations"] == 2 * found["activations"] > 0
    assert training_bytes(MODELS["bert-base-uncased"])["activations"] == 0


# ---- time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [small("llama", tied=False), small("llama"), small("gpt2")])
def test_a_token_reads_the_matrices_the_output_and_the_cache(model):
    """Counted from the model that transformers builds: its matrices, less the embedding if that is apart."""
    built = library_model(model)
    inner = sum(p.nbytes for n, p in built.named_parameters() if p.dim() == 2 and "emb" not in n)
    inner -= sum(p.nbytes for n, p in built.named_parameters() if "wpe" in n or "wte" in n)
    inner -= built.lm_head.weight.nbytes if "lm_head.weight" in dict(built.named_parameters()) else 0
    wanted = inner + built.lm_head.weight.nbytes + 2 * cache_bytes(model, 8)  # all in float32
    assert bytes_per_token(model, "float32", 8) + cache_bytes(model, 8) == wanted


def test_bandwidth_is_one_of_a_machine():
    assert 1e8 < measure_bandwidth(2**22, tries=3) < 1e13
    with pytest.raises(ValueError, match="n_bytes=100"):
        measure_bandwidth(100)


# ---- the table ------------------------------------------------------------------------------


def test_every_row_has_its_sources_and_every_name_is_there_once():
    models = read_models()
    assert len({model.name for model in models}) == len(models) == 18
    for model in models:
        assert "" not in (model.read, model.forbids, model.licence, model.languages)
        for source in (model.config_source, model.licence_source):
            assert source.startswith(("https://huggingface.co/", "https://github.com/", "package "))
    assert {model.task for model in models} == set(open_models.TASKS)


def test_the_installed_encoder_has_the_sizes_of_its_row():
    config, row = AutoConfig.from_pretrained(encoder_name(quiet=True)), MODELS["all-MiniLM-L6-v2"]
    assert (row.d_model, row.encoder_layers) == (config.hidden_size, config.num_hidden_layers)
    assert (row.d_ff, row.heads) == (config.intermediate_size, config.num_attention_heads)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "vision"}, "choose from"),
        ({"commercial": "perhaps"}, "choose from"),
        ({"model_type": "mamba"}, "only gpt2"),
        ({"d_model": 0}, "d_model of"),
        ({"decoder_layers": 0}, "the layers of"),
    ],
)
def test_a_row_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(MODELS["gpt2"], **changes)


def test_a_table_without_a_column_is_refused(tmp_path):
    with (course_data() / "models" / "models.csv").open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "d_ff"} for row in csv.DictReader(file)]
    with (tmp_path / "own.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match="without d_ff"):
        read_models(tmp_path / "own.csv")
    assert {field.name for field in fields(OpenModel)} - rows[0].keys() == {"d_ff"}


# ---- choosing -------------------------------------------------------------------------------


def names(need):
    return {model.short_name for model in choose(MODELS.values(), need)}


def test_each_need_takes_away_what_it_should():
    everything = names(Need("text"))
    assert everything == {model.short_name for model in MODELS.values() if model.task == "text"}
    assert everything - names(Need("text", commercial=True)) == {"Qwen2.5-3B-Instruct", "Llama-3.2-1B"}
    assert everything - names(Need("text", language="zh")) == {"gpt2", "SmolLM2-360M", "Llama-3.2-1B"}
    assert everything - names(Need("text", tokens=2048)) == {"gpt2"}
    assert everything - names(Need("text", gigabytes=4)) == {"Qwen2.5-3B-Instruct", "Qwen3-8B"}
    assert everything - names(Need("text", gigabytes=4, precision="int4")) == {"Qwen3-8B"}
    assert everything - names(Need("text", seconds=0.2, bandwidth=2e10)) == {
        "Qwen3-8B",
        "Qwen2.5-3B-Instruct",
    }
    assert names(Need("translation", language="zh>en")) == {"m2m100_418M", "nllb-200-distilled-600M"}


def test_the_best_of_those_that_fit_stands_first():
    sizes = [sum(parameter_parts(m).values()) for m in choose(MODELS.values(), Need("encoder"))]
    assert sizes == sorted(sizes, reverse=True)


def test_all_reasons_are_given_not_the_first():
    need = Need("text", "zh", commercial=True, gigabytes=1, tokens=10, seconds=1e-3, bandwidth=1e9)
    assert len(reasons_against(MODELS["Llama-3.2-1B"], need)) == 4
    assert reasons_against(MODELS["Qwen3-0.6B"], Need("speech")) == ["is for text"]


def test_memory_is_weights_and_cache_and_encoders_have_no_time_a_token():
    model = MODELS["Qwen3-0.6B"]
    assert memory_bytes(model, "int8", 100) == weight_bytes(model, "int8") + cache_bytes(model, 100)
    assert token_seconds(MODELS["bert-base-uncased"], Need("encoder", bandwidth=1e9)) is None
    assert token_seconds(model, Need("text")) is None


@pytest.mark.parametrize("bad", [dict(task="x"), dict(precision="int5"), dict(gigabytes=0), dict(seconds=-1)])
def test_a_need_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Need(**(dict(task="text") | bad))


def test_the_course_model_counts_as_its_row_would():
    """A row with the sizes of a model of the course: the same parameters as the model, here and there."""
    row = small("llama", d_model=64, heads=4, kv_heads=2, head_dim=16, d_ff=128, vocabulary=300)
    ours = GPT(as_config(row))
    assert sum(parameter_parts(row).values()) == ours.n_parameters()
    assert to_transformers(ours).num_parameters() == ours.n_parameters()
