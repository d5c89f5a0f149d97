"""Round trips of weights, by property: a model that goes out comes back with the same outputs, or a
sentence says why not.

A case draws a value for each switch of the configuration, and for what may be done to a model before
it is saved: another precision, quantization, adapters, parts tied or untied by hand, `torch.compile`.
Nothing is compared with what the code once printed: the model before the trip is the expectation, to
the last bit, with its weights rounded to what the file holds.
"""

import copy
import random
import re
from collections import Counter
from dataclasses import fields

import pytest
import torch
from torch import nn

from llmcourse.checkpoint import load_checkpoint, save_checkpoint
from llmcourse.compress.quantize import quantize_linears, uniform_levels
from llmcourse.convert import GPT2_PARTS, LLAMA_PARTS, from_transformers, to_transformers
from llmcourse.finetune.lora import TARGETS, add_lora, load_adapters, lora_layers, merge_lora, save_adapters
from llmcourse.pretrained import load_model, save_model
from llmcourse.tokenizer import BPETokenizer
from llmcourse.tune.techniques import TECHNIQUES, TechniqueConfig, make_config, make_model
from llmcourse.weights import unwrap

TOKENIZER = BPETokenizer.from_merges([(97, 98)])
FIXED = dict(vocab_size=258, context_length=8, d_model=16)
SWITCHES = {  # a new field of ModelConfig or TechniqueConfig goes here, or into FIXED
    "n_layers": (1, 2), "n_heads": (2, 4), "n_kv_heads": (None, 1, 2), "d_head": (None, 8),
    "d_ff": (None, 24), "norm": ("rms", "layer"), "norm_position": ("pre", "post"),
    "norm_eps": (1e-5, 1e-2), "positions": ("rotary", "learned", "sinusoidal", "none"),
    "rotary_base": (10000.0, 30.0), "rotary_scaling": (None, dict(factor=4.0, original_context=4)),
    "mlp": ("relu", "gelu", "relu_squared", "silu", "swiglu", "gelu_tanh"), "bias": (False, True),
    "qk_norm": (False, True), "tied_embeddings": (True, True, False), "scaled_embeddings": (False, True),
    "dropout": (0.0, 0.1), "embedding_shift": (0, 0, 2), "token_shift": (False, True),
    "value_embeddings": (False, True), "bigram_table": (False, True), "logit_cap": (None, 3.0),
    "zero_init": (False, True), "embedding_std": (0.02, 1.0),
}  # fmt: skip
KNOWN = {field.name for field in fields(TechniqueConfig)}
DEFAULTS = {field.name: field.default for field in fields(TechniqueConfig)}
FAMILIES = {
    "any": {},
    "gpt2": {**GPT2_PARTS, "n_kv_heads": None, "d_head": None, "rotary_scaling": None},
    "llama": LLAMA_PARTS,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZATION = {
    "none": None,
    "double": {},
    "one scale": dict(double=False),
    "int4": dict(levels=uniform_levels(), block=32),
}
DONE = {  # what may be done to a model, and how often it is drawn
    "family": ("any", "any", "gpt2", "llama"),
    "dtype": ("float32", "float32", "bfloat16", "float16"),
    "by hand": ("nothing", "nothing", "untied", "tied", "a part twice"),
    "quantization": ("none", "none", "none", *list(QUANTIZATION)[1:]),
    "adapters": ("none", "none", "kept", "merged", "merged"),
    "targets": (TARGETS, ("attention.qkv",), ("unembedding",), (*TARGETS, "unembedding")),
    "compiled": ("no", "no", "all", "a block"),
    "compiled there": ("no", "no", "all", "a block"),
    "storage": ("float32", "float32", "bfloat16", "float16"),
    "into": ("one built alike", "its configuration", "the first configuration"),
}
COUNTS = {"folder": 95, "checkpoint": 105, "transformers": 50, "adapters": 60}
IDS = torch.tensor([[97, 98, 257, 0, 255, 7, 7, 97]])


def draw_cases(trip, **only):
    """Return as many different cases as COUNTS says, the same at each run."""
    rng, cases = random.Random(trip), {}
    while len(cases) < COUNTS[trip]:
        done = {name: rng.choice(only.get(name, values)) for name, values in DONE.items()}
        switches = {name: rng.choice(values) for name, values in SWITCHES.items()}
        if done["family"] != "any" or rng.random() < 0.3:  # a plain GPT
            switches = {name: value for name, value in switches.items() if name not in TECHNIQUES}
        case = done | {"config": make_config(**(FIXED | switches | FAMILIES[done["family"]]))}
        cases[repr(case)] = case
    return list(cases.values())


def build(case, config=None, seed=0, adapters=None):
    """Return the model of a case, with random weights in every part, and not yet compiled."""
    torch.manual_seed(seed)
    model = make_model(config or case["config"]).eval()
    for name, parameter in model.named_parameters():
        gain = parameter.dim() == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if gain else 0.0, std=0.2)
    if case["by hand"] == "untied":
        model.unembedding.weight = nn.Parameter(torch.randn(model.unembedding.weight.shape) / 4)
    elif case["by hand"] == "tied":
        model.unembedding.weight = model.token_embedding.weight
    elif case["by hand"] == "a part twice":
        model.blocks[-1].mlp.down = model.blocks[0].mlp.down
    model.to(DTYPES[case["dtype"]])
    if case["quantization"] != "none":
        quantize_linears(model, **QUANTIZATION[case["quantization"]])
    if (adapters or case["adapters"]) != "none":
        add_lora(model, 2, alpha=7.0 + seed, targets=case["targets"])
        for layer in lora_layers(model).values():
            nn.init.normal_(layer.B, std=0.3)
        if case["adapters"] == "merged":
            merge_lora(model)
    return model


def compiled(model, how):
    if how == "a block":
        model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    return torch.compile(model, backend="eager") if how == "all" else model


@torch.no_grad()
def logits(model):
    """Return the logits; what is compiled runs as it is inside, which is the same and faster."""
    model = unwrap(model)
    for i, block in enumerate(model.blocks):
        model.blocks[i] = unwrap(block)
    return model(IDS)


@torch.no_grad()
def in_float32(model, storage=torch.float32):
    """Return a copy in float32 whose weights are rounded to `storage`; tables of positions are exact."""
    model = copy.deepcopy(model)
    tables = dict(make_model(model.config).named_buffers())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(storage).float()
    for name, buffer in model.named_buffers():
        buffer.data = tables[name]
    return model


def not_ordinary(case, model):
    """Return why only a model of other parts can hold these weights, None if an ordinary one can."""
    if lora_layers(model):
        return "has an adapter: merge_lora"
    return "has weights of four bits" if any(name.endswith("codes") for name in model.state_dict()) else None


def by_folder(case, path):
    model = build(case)
    reason = not_ordinary(case, model)
    wanted = None if reason else logits(in_float32(model, DTYPES[case["storage"]]))

    def trip():
        save_model(path, compiled(model, case["compiled"]), TOKENIZER, DTYPES[case["storage"]])
        return logits(load_model(path, type(model))[0])

    return trip, wanted, reason


def by_checkpoint(case, path):
    model, reason = build(case), None
    wanted = logits(model)
    if case["into"] == "one built alike":
        other = build(case, seed=1)
    else:
        first = case["into"] == "the first configuration"
        config = case["config"] if first else model.config
        torch.manual_seed(1)
        other = make_model(config).eval().to(DTYPES[case["dtype"]])
        if config != model.config:
            reason = "tied_embeddings is (True|False) there and (True|False) here"
        elif not_ordinary(case, model):
            reason = "does not fit the model"
    ends = [m.unembedding.weight is m.token_embedding.weight for m in (model, other) if not lora_layers(m)]
    if ends == [False, True] and case["by hand"] == "untied":  # a merge says so in the configuration
        reason = f"{reason or 'nothing'}|are one tensor in the model, and differ"

    def trip():
        save_checkpoint(path / "file", compiled(model, case["compiled"]))
        there = compiled(other, case["compiled there"])
        load_checkpoint(path / "file", there)
        return logits(there)

    return trip, wanted, reason


def by_transformers(case, path):
    model = build(case)
    reason = not_ordinary(case, model)
    wanted = None if reason else logits(in_float32(model))
    if case["family"] == "any":
        reason = f"{reason or 'nothing'}|has no counterpart|in the way of GPT-2: .*; in the way of Llama: "

    def trip():
        theirs = to_transformers(compiled(model, case["compiled"]))
        with torch.no_grad():
            torch.testing.assert_close(theirs.eval()(IDS).logits, wanted, rtol=0, atol=1e-4)
        return logits(from_transformers(theirs))

    return trip, wanted, reason


def by_adapters(case, path):
    """On the base they grew on; or on one that differs in one weight, which the file must notice."""
    model = build(case, adapters="kept")
    bare = build({**case, "adapters": "none"})
    wanted, reason = logits(model), None
    if case["into"] == "the first configuration":
        changed = random.Random(repr(case)).choice(list(bare.state_dict().values()))
        changed.view(-1)[-1] += 1
        reason = "belongs to another base model"

    def trip():
        save_adapters(path / "file", compiled(model, case["compiled"]))
        there = compiled(bare, case["compiled there"])
        load_adapters(path / "file", there)
        return logits(there)

    return trip, wanted, reason


TRIPS = {
    "folder": (by_folder, {}),
    "checkpoint": (by_checkpoint, {}),
    "transformers": (
        by_transformers,
        {
            "family": ("any", *["gpt2", "llama"] * 3),
            "quantization": ("none", "none", "double"),
            "adapters": ("none", "none", "kept", "merged", "merged", "merged"),
        },
    ),
    "adapters": (by_adapters, {"adapters": ("kept",)}),
}


@pytest.mark.parametrize("trip", TRIPS)
def test_outputs_are_the_same_after_a_round_trip_or_a_sentence_says_why_not(trip, tmp_path):
    way, only = TRIPS[trip]
    outcomes, wrong = Counter(), []
    for number, case in enumerate(draw_cases(trip, **only)):
        go, wanted, reason = way(case, tmp_path / str(number))
        try:
            outcome = "equal" if torch.equal(go(), wanted) else "different"
        except (ValueError, RuntimeError) as error:
            outcome = "refused"
            if reason is None or not re.search(reason, str(error)):
                outcome = f"refused, by {error!r} and not by {reason!r}"
        if reason and outcome == "equal" and case["family"] != "any":
            outcome = f"equal, and not refused by {reason!r}"
        outcomes[outcome.split(",")[0]] += 1
        if outcome not in ("equal", "refused"):
            wrong.append(f"{outcome}: {case}")
    assert not wrong, f"{len(wrong)} of {sum(outcomes.values())}: " + "\n".join(wrong[:3])
    assert outcomes.keys() == {"equal", "refused"}
    assert outcomes["equal"] >= 0.4 * COUNTS[trip], outcomes
    print(trip, dict(outcomes))


def test_there_are_enough_cases_and_no_field_is_forgotten():
    assert sum(COUNTS.values()) >= 300
    assert set(FIXED) | set(SWITCHES) >= KNOWN, "a new field: give it values in SWITCHES"
    for trip, (_, only) in TRIPS.items():
        cases = draw_cases(trip, **only)
        for name, values in DONE.items():
            assert {case[name] for case in cases} == set(only.get(name, values)), (trip, name)
        for name in SWITCHES if trip != "transformers" else SWITCHES.keys() - TECHNIQUES:
            found = {repr(getattr(case["config"], name, DEFAULTS[name])) for case in cases}
            assert len(found) == len(set(map(repr, SWITCHES[name]))), (trip, name)
