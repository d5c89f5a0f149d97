"""Measures against brute force, and illnesses that were planted: all must be found, and none where there is none."""

import copy

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy

from llmcourse.compress.rounding import quantize_model
from llmcourse.config import ModelConfig
from llmcourse.finetune.lora import add_lora, lora_parameters, merge_lora
from llmcourse.interpret.health import (
    SILENT,
    examine,
    loss_without,
    mean_cosine,
    moved_share,
    received,
    spread,
)
from llmcourse.interpret.hooks import hooked, record
from llmcourse.interpret.lens import logit_contributions
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT
from llmcourse.optim import AdamW
from llmcourse.packed import Scheme
from llmcourse.packed_model import unpack_model
from llmcourse.pretrained import load_course_model

V = 20
ROWS = torch.randint(V, (32, 16), generator=torch.Generator().manual_seed(0))
KINDS = {
    "llama": {},
    "grouped": dict(n_kv_heads=2, qk_norm=True),
    "gpt2": dict(norm="layer", positions="learned", mlp="gelu_tanh", bias=True),
    "post": dict(norm="layer", norm_position="post", positions="learned", mlp="gelu", bias=True),
}


def healthy(kind="llama", seed=0):
    """A model of random weights, large enough that its heads look at what is written."""
    torch.manual_seed(seed)
    options = dict(vocab_size=V, context_length=16, d_model=32, n_heads=4, n_layers=2) | KINDS[kind]
    model = GPT(ModelConfig(**options)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.0 if "embedding" in name else 0.3)
    return model


def trained():
    """A model that has been trained for a while, on rows of 8 tokens that come twice."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=V, context_length=16, d_model=32, n_heads=2, n_layers=2, mlp="gelu"))
    optimizer = AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        rows = torch.randint(V, (16, 8)).repeat(1, 2)
        total, count = next_token_loss(model, (rows[:, :-1], rows[:, 1:]))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return model


def found(model, rows=ROWS):
    return {(symptom.kind, symptom.place) for symptom in examine(model, rows).symptoms}


# --- illnesses ----------------------------------------------------------------------------------


def unit_with_a_bias_of_minus_100(model):
    model.blocks[1].mlp.up.bias[7] = -100
    return {("dead unit", "layer 1, unit 7")}


def unit_with_a_gate_of_zeros(model):
    model.blocks[0].mlp.up.weight[9] = 0
    return {("dead unit", "layer 0, unit 9")}


def units_that_nobody_reads(model):
    model.blocks[1].mlp.down.weight[:, [3, 4]] = 0
    return {("dead unit", "layer 1, unit 3"), ("dead unit", "layer 1, unit 4")}


def head_with_queries_of_zeros(model):
    model.blocks[1].attention.qkv.weight[2 * 8 : 3 * 8] = 0
    if model.blocks[1].attention.qkv.bias is not None:
        model.blocks[1].attention.qkv.bias[2 * 8 : 3 * 8] = 0
    return {("fixed head", "layer 1, head 2")}


def head_that_nobody_reads(model):
    model.blocks[0].attention.out.weight[:, :8] = 0
    return {("silent head", "layer 0, head 0")}


def states_that_point_one_way(model):
    """A large number that all tokens share, and that neither attention nor MLP reads."""
    model.token_embedding.weight[:, 0] = 1000
    for block in model.blocks:
        block.attention.qkv.weight[:, 0] = block.mlp.up.weight[:, 0] = 0
        block.attention.qkv.weight *= 200
    return {("one direction", f"stream after {n} layers") for n in range(3)}


def head_that_looks_at_the_first_position(model):
    """The first position alone has a number that the head's keys read; its queries are a constant."""
    model.token_embedding.weight[:, 0] = model.position_embedding.weight[1:, 0] = 0
    model.position_embedding.weight[0, 0] = 20
    qkv = model.blocks[0].attention.qkv
    qkv.weight[8:16], qkv.weight[40:48] = 0, 0
    qkv.bias[8:16], qkv.weight[40:48, 0] = 1, 2
    return {("attention sink", "layer 0, head 1"), ("fixed head", "layer 0, head 1")}


ILLNESSES = [
    (unit_with_a_bias_of_minus_100, ["gpt2", "post"]),
    (unit_with_a_gate_of_zeros, ["llama", "grouped"]),
    (units_that_nobody_reads, list(KINDS)),
    (head_with_queries_of_zeros, list(KINDS)),
    (head_that_nobody_reads, list(KINDS)),
    (states_that_point_one_way, ["llama"]),
    (head_that_looks_at_the_first_position, ["gpt2"]),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        pytest.param(plant, kind, id=f"{plant.__name__}-{kind}")
        for plant, kinds in ILLNESSES
        for kind in kinds
    ],
)
def test_what_was_planted_is_found_and_nothing_else(plant, kind, seed):
    model = healthy(kind, seed)
    with torch.no_grad():
        planted = plant(model)
    assert found(model) == planted


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_a_healthy_model(kind, seed):
    assert found(healthy(kind, seed)) == set()


def test_nothing_is_found_in_an_untrained_model_and_a_trained_one():
    torch.manual_seed(0)
    untrained = GPT(ModelConfig(vocab_size=V, context_length=16, d_model=192, n_heads=6))
    assert found(untrained) == set()
    rows = ROWS[:, :8].repeat(1, 2)
    assert found(trained(), rows) == set()


def test_what_is_found_in_the_course_model_does_nothing_there():
    """The verdicts of the examination against the logits, which do not change without what was found."""
    model, tokenizer = load_course_model()
    text = (
        "\n\nHAMLET:\nTo be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"
        * 20
    )
    rows = torch.tensor(tokenizer.encode(text)[:640]).reshape(10, 64)
    examination = examine(model, rows)
    dead, fixed = examination.unit_writes < SILENT, examination.head_moves < 1e-4
    assert dead.sum() > 100
    assert fixed.any()
    edits = {f"blocks.{i}.mlp.hidden": lambda x, i=i: x.masked_fill(dead[i], 0) for i in range(4)}
    edits |= {f"blocks.{i}.attention.q": lambda x, i=i: x.masked_fill(fixed[i, :, None], 0) for i in range(4)}
    other = {f"blocks.{i}.mlp.hidden": lambda x, i=i: x.masked_fill(dead[i].roll(1), 0) for i in range(4)}
    losses = [loss_without(model, rows)]
    for some in (edits, other):
        with hooked(model, some):
            losses.append(loss_without(model, rows))
    assert abs(losses[1] - losses[0]) < 2e-3
    assert abs(losses[2] - losses[0]) > 10 * abs(losses[1] - losses[0])


# --- measures -----------------------------------------------------------------------------------


def some_weights():
    model = healthy("grouped")
    return record(model, ROWS, "blocks.1.attention.weights")["blocks.1.attention.weights"].double()


def test_mean_cosine_is_the_mean_over_all_pairs():
    states = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) + 1
    pairs = F.cosine_similarity(states[:, None], states[None], dim=-1)
    expected = (pairs.sum() - 30) / (30 * 29)
    torch.testing.assert_close(mean_cosine(states), expected)


def test_moves_are_total_variation_between_neighbouring_rows():
    weights, total = some_weights(), torch.zeros(4, dtype=torch.float64)
    for b in range(32):
        for t in range(8, 16):
            total += (weights[b, :, t] - weights[b - 1, :, t]).abs().sum(-1) / 2
    torch.testing.assert_close(moved_share(weights), total / 256)


def test_spread_is_scipys_entropy():
    weights = some_weights()
    expected = sum(
        torch.from_numpy(entropy(weights[:, :, t, : t + 1].numpy(), axis=-1, base=t + 1)).mean(0)
        for t in range(1, 16)
    )
    torch.testing.assert_close(spread(weights), expected / 15)


def test_received_is_the_mean_column():
    weights = some_weights()
    torch.testing.assert_close(received(weights)[2, 5], weights[:, 2, 8:, 5].mean())
    torch.testing.assert_close(received(weights).sum(-1), torch.ones(4, dtype=torch.float64))


def test_a_position_that_nobody_sees_is_a_token_that_is_not_there():
    """Without positions, the rest of the row cannot tell the two apart."""
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(vocab_size=V, context_length=17, d_model=32, positions="none", n_layers=3)
    ).train()
    for positions in ([0], [3], [1, 5]):
        kept = [t for t in range(16) if t not in positions]
        logits = model(ROWS[:, kept])[:, kept.index(8) : -1]
        expected = F.cross_entropy(logits.flatten(0, 1), ROWS[:, 9:].flatten()).item()
        assert loss_without(model, ROWS, positions) == pytest.approx(expected, rel=1e-5)
    assert loss_without(model, ROWS) == pytest.approx(loss_without(model, ROWS, []))


def test_the_table_has_a_line_for_each_layer_and_a_symptom_says_where():
    model = healthy()
    with torch.no_grad():
        units_that_nobody_reads(model)
    examination = examine(model, ROWS)
    assert len(examination.table().splitlines()) == 3
    assert len({len(line) for line in examination.table().splitlines()}) == 1
    assert "layer 1, unit 3" in str(examination.symptoms[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [(ROWS[:1], "at least 2 rows"), (ROWS[:, :3], "at least 4 tokens"), ([[V] * 4] * 2, "prompt 0")],
)
def test_too_little_text_is_named(rows, message):
    with pytest.raises(ValueError, match=message):
        examine(healthy(), rows)


@pytest.mark.parametrize("position", [-1, 8, 0.5])
def test_a_position_that_is_predicted_is_refused(position):
    with pytest.raises(ValueError, match="not in the first half of 16 tokens"):
        loss_without(healthy(), ROWS, [position])


@pytest.mark.parametrize("n", [1, 2])
def test_a_loss_of_no_prediction_is_refused(n):
    with pytest.raises(ValueError, match="give at least 3"):
        loss_without(GPT(ModelConfig(V, d_model=16, n_heads=2, n_layers=1)), [list(range(n))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("packed", [False, True])
def test_adapters_and_packed_weights_are_examined_as_the_weights_that_they_stand_for(dtype, packed):
    torch.manual_seed(0)
    model = GPT(ModelConfig(V, d_model=16, n_heads=2, n_layers=2, bias=True)).eval()
    if packed:
        model = quantize_model(model, Scheme(8, "row"), embedding=Scheme(8, "row"))
    model = add_lora(model.to(dtype), 2, targets=("out", "down", "unembedding"))
    for part in lora_parameters(model):
        torch.nn.init.normal_(part, std=0.3)
    merged = unpack_model(merge_lora(copy.deepcopy(model)))
    found, wanted = examine(model, ROWS), examine(merged, ROWS)
    assert torch.allclose(found.unit_writes, wanted.unit_writes.to(dtype), rtol=1e-4)
    assert torch.allclose(found.head_writes, wanted.head_writes.to(dtype), rtol=1e-4)
    parts, logits = logit_contributions(model, ROWS, 3, 4), model(ROWS)[:, -1]
    assert torch.allclose(sum(parts.values()), logits[:, 3] - logits[:, 4], atol=1e-5)
