"""The costs of a model against the model itself, torch's counter, and what autograd really keeps."""

import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from llmcourse.config import CHOICES
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import AdamW
from llmcourse.tune.costs import (
    best_seconds,
    count_parameters,
    flops_per_token,
    kept_bytes,
    measure_matmul_peak,
    model_flops_utilization,
    six_n,
    training_memory,
)
from llmcourse.tune.techniques import make_config, make_model

BASE = ModelConfig(vocab_size=70, context_length=32, d_model=32, n_heads=4, n_layers=3)
CHANGES = [
    *({field: choice} for field, choices in CHOICES.items() for choice in choices),
    *({"norm": "layer", "bias": True, "mlp": mlp} for mlp in CHOICES["mlp"]),
    *({"n_kv_heads": n} for n in (1, 2, 4)),
    {"qk_norm": True},
    {"qk_norm": True, "n_kv_heads": 2, "positions": "none"},
    {"d_head": 16},
    {"d_head": 2, "n_kv_heads": 2, "qk_norm": True},
    {"d_head": 6, "n_kv_heads": 1, "n_heads": 3, "value_embeddings": True, "bias": True},
    {"tied_embeddings": False},
    {"scaled_embeddings": True},
    {"d_ff": 50},
    {"n_layers": 1},
    {"embedding_shift": 3},
    {"token_shift": True},
    {"token_shift": True, "norm": "layer", "positions": "learned"},
    *({"value_embeddings": True, "positions": p, "qk_norm": q} for p in ("rotary", "none") for q in (0, 1)),
    {"value_embeddings": True, "n_kv_heads": 2, "bigram_table": True},
    {"bigram_table": True, "logit_cap": 15.0, "zero_init": True},
]
CONFIGS = [
    *(make_config(**(vars(BASE) | change)) for change in CHANGES),
    ModelConfig.gpt2(50, context_length=16, d_model=32),
    ModelConfig.llama(50, context_length=16, d_model=32, n_kv_heads=2),
    ModelConfig.transformer_2017(50, context_length=16, d_model=32),
]
NAMES = [str(change) for change in CHANGES] + ["gpt2", "llama", "2017"]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=NAMES)


def loss_of(model, batch_size=3):
    ids = torch.randint(model.config.vocab_size, (batch_size, model.config.context_length))
    return F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())


@every_config
def test_parameters_are_those_of_the_model(config):
    model, parts = make_model(config), count_parameters(config)
    assert sum(parts.values()) == model.n_parameters()
    for part, pattern in (("attention", ".attention."), ("mlp", ".mlp."), ("position embedding", "position")):
        named = [(n, p.numel()) for n, p in model.named_parameters() if pattern in n]
        assert parts[part] == sum(
            size for name, size in named if "q_norm" not in name and "k_norm" not in name
        )


def test_the_course_model_and_gpt2_have_their_published_sizes():
    gpt2 = ModelConfig.gpt2(50257, context_length=1024, d_model=768, n_heads=12, n_layers=12)
    assert sum(count_parameters(gpt2).values()) == 124_439_808  # transformers' GPT2LMHeadModel
    llama = ModelConfig.llama(32000, d_model=4096, n_heads=32, n_layers=32, d_ff=11008)
    assert sum(count_parameters(llama).values()) == 6_738_415_616  # Llama 7B


@every_config
def test_operations_are_those_that_torch_counts(config):
    model = make_model(config)
    tokens = 3 * config.context_length
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = loss_of(model)
        assert counter.get_total_flops() == flops_per_token(config, backward=False) * tokens
        loss.backward()
    assert counter.get_total_flops() == flops_per_token(config) * tokens


def test_a_causal_mask_and_a_shorter_context_need_less():
    T, C, L = BASE.context_length, BASE.d_model, BASE.n_layers
    saved = flops_per_token(BASE, backward=False) - flops_per_token(BASE, backward=False, causal=True)
    assert saved == 4 * L * C * (T - (T + 1) / 2)
    one = flops_per_token(BASE, context_length=1)
    assert one == flops_per_token(BASE, causal=True, context_length=1)
    assert one == flops_per_token(replace(BASE, context_length=1))


def test_the_rule_of_six_is_close_in_a_large_model_and_far_in_a_small_one():
    large = ModelConfig.llama(32000, context_length=2048, d_model=8192, n_heads=64, n_layers=80, d_ff=22016)
    assert 0.93 < six_n(large) / flops_per_token(large) < 1
    small = ModelConfig(vocab_size=2048, context_length=128, d_model=64, n_layers=2)
    assert six_n(small) / flops_per_token(small) < 0.5
    blocks = count_parameters(BASE)
    assert six_n(BASE) == 6 * (blocks["attention"] + blocks["mlp"])


@every_config
def test_activations_are_what_autograd_keeps(config):
    model = make_model(config)
    kept = kept_bytes(lambda: loss_of(model), model)
    assert training_memory(config, 3)["activations"] == pytest.approx(kept, rel=0.02)


def test_checkpointing_keeps_the_inputs_of_the_blocks():
    config = replace(BASE, n_layers=8)
    model = make_model(config)
    plain = kept_bytes(lambda: loss_of(model), model)
    for block in model.blocks:
        block.forward = lambda *a, _f=block.forward, **k: checkpoint(_f, *a, use_reentrant=False, **k)
    kept = kept_bytes(lambda: loss_of(model), model)
    one_block = (plain - kept) / 7.5  # while it runs backward, one block keeps everything
    stated = training_memory(config, 3, checkpointing=True)["activations"]
    assert stated == pytest.approx(kept + one_block, rel=0.2)
    assert stated < 0.4 * plain


def test_weights_gradients_and_states_are_those_in_memory():
    model = GPT(BASE)
    optimizer = AdamW(model.parameters())
    loss_of(model).backward()
    optimizer.step()
    memory = training_memory(BASE, 3)
    gradients = sum(p.grad.nbytes for p in model.parameters())
    states = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t))
    assert (memory["gradients"], memory["optimizer"]) == (gradients, states)
    assert memory["weights"] == sum(p.nbytes for p in model.parameters())
    assert training_memory(BASE, 3, optimizer_states=0)["optimizer"] == 0
    half = training_memory(BASE, 3, context_length=16)["activations"]
    assert 2 * half == memory["activations"]


def test_kept_bytes_counts_a_piece_of_memory_once_and_no_parameter():
    linear = torch.nn.Linear(8, 8, bias=False)
    x = torch.randn(4, 8)
    assert kept_bytes(lambda: linear(x).sum(), linear) == x.nbytes
    assert kept_bytes(lambda: (linear(x) + linear(x)).sum(), linear) == x.nbytes
    with torch.no_grad():
        assert kept_bytes(lambda: linear(x).sum(), linear) == 0


def test_the_peak_is_a_speed_that_a_processor_can_have():
    peak = measure_matmul_peak(size=64, seconds=0.02)
    assert 1e7 < peak < 1e16
    assert measure_matmul_peak(size=4, seconds=0) > 0


def test_the_best_of_several_tries_is_taken_in_turn():
    order = []

    def work(name, seconds):
        order.append(name)
        time.sleep(seconds if order.count(name) < 3 else 0)

    best = best_seconds({"a": lambda: work("a", 0.05), "b": lambda: work("b", 0.0)}, tries=3)
    assert order == ["a", "b"] * 3
    assert best["a"] < 0.05


def test_utilization_is_the_share_of_the_peak():
    peak = 1e12
    speed = peak / flops_per_token(BASE)  # tokens per second, if nothing were lost
    assert model_flops_utilization(speed, BASE, peak) == pytest.approx(1)
    assert model_flops_utilization(speed / 4, BASE, peak) == pytest.approx(0.25)
    assert model_flops_utilization(speed, BASE, peak, causal=True) < 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="batch_size=0"):
        training_memory(BASE, 0)
    with pytest.raises(ValueError, match="tries=0"):
        best_seconds({}, tries=0)
    with pytest.raises(ValueError, match="size=0"):
        measure_matmul_peak(0)
    with pytest.raises(ValueError, match="peak=0"):
        model_flops_utilization(1.0, BASE, 0)
