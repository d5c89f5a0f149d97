"""Wrappers come off, whatever their order; what a file cannot hold or a model cannot take is named."""

import copy
import math
import sys

import pytest
import torch
from torch import nn

from llmcourse.positions import rotary_angles
from llmcourse.tune.techniques import make_config, make_model
from llmcourse.weights import config_and_state, load_state, rounded, unwrap


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    return make_model(
        make_config(**(dict(vocab_size=20, d_model=16, n_layers=2, context_length=8) | options))
    ).eval()


def logits(model):
    with torch.no_grad():
        return model(torch.arange(8)[None])


def test_wrappers_come_off_in_any_order_and_the_names_with_them():
    """torch names a wrapped module's weights "_orig_mod." and "module."; nanoGPT's loader strips the first."""
    layer = nn.Linear(2, 2)
    compiled = torch.compile(layer, backend="eager")
    parallel = nn.DataParallel(layer)
    for wrapped in (
        layer,
        compiled,
        parallel,
        nn.DataParallel(compiled),
        torch.compile(parallel, backend="eager"),
    ):
        assert unwrap(wrapped) is layer
    assert list(unwrap(compiled).state_dict()) == ["weight", "bias"] != list(compiled.state_dict())


def test_a_part_called_module_is_no_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    holder = Holder()
    assert unwrap(holder) is holder


# ---- the two ends -----------------------------------------------------------------------------


def test_a_state_with_two_ends_is_not_loaded_into_a_tied_model():
    """torch's load_state_dict keeps the last of two values for one tensor, without a word."""
    state = small_model(tied_embeddings=False).state_dict()
    tied = small_model(1)
    before = logits(tied)
    for model, given in (
        (tied, state),
        (nn.ModuleDict({"m": tied}), {f"m.{n}": t for n, t in state.items()}),
    ):
        with pytest.raises(
            ValueError, match=r"token_embedding.weight and .*unembedding.weight are one tensor"
        ):
            model.load_state_dict(given)
    assert torch.equal(logits(tied), before)
    same = {**state, "unembedding.weight": state["token_embedding.weight"].clone()}
    tied.load_state_dict(same)
    expected = small_model(2, tied_embeddings=False)
    expected.load_state_dict(same)
    assert torch.equal(logits(tied), logits(expected))


def test_the_hook_stays_through_copies_and_ties_made_by_hand():
    state = small_model(tied_embeddings=False).state_dict()
    by_hand = small_model(1, tied_embeddings=False)
    by_hand.unembedding.weight = by_hand.token_embedding.weight
    for model in (copy.deepcopy(small_model()), copy.deepcopy(small_model()).half(), by_hand):
        assert model.unembedding.weight is model.token_embedding.weight
        with pytest.raises(ValueError, match="are one tensor in the model"):
            model.load_state_dict(state)


def test_a_tied_model_of_nan_can_still_be_looked_at():
    model = small_model()
    model.token_embedding.weight.data.fill_(torch.nan)
    again = small_model(1)
    again.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert again.token_embedding.weight.isnan().all()


def test_the_configuration_says_whether_the_ends_are_one_now():
    """huggingface/peft#2972: a configuration that says "tied" of a model that is not loses the output."""
    model = small_model()
    assert config_and_state(model)[0] == model.config
    model.unembedding.weight = nn.Parameter(model.unembedding.weight.detach().clone())
    assert not config_and_state(model)[0].tied_embeddings
    model.token_embedding.weight = model.unembedding.weight
    assert config_and_state(model)[0].tied_embeddings


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned", "none"])
def test_shapes_are_known_without_memory_random_numbers_and_the_compiler(positions, monkeypatch):
    """Under torch.device("meta"), a draw and an arange import torch's compiler: seconds for milliseconds."""
    model = small_model(positions=positions, norm="layer", bias=True, bigram_table=True, embedding_shift=1)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import would fail
    monkeypatch.setattr(torch.Tensor, "normal_", None)
    assert config_and_state(model)[0] == model.config


def test_what_no_configuration_describes_is_refused_and_no_random_number_is_drawn():
    model = small_model()
    before = torch.get_rng_state()
    config_and_state(model)
    assert torch.equal(torch.get_rng_state(), before)
    model.blocks[1].mlp.up = nn.Linear(16, 96)
    with pytest.raises(
        ValueError, match=r"blocks.1.mlp.up.bias is \(96,\), by the configuration nothing \(1 "
    ):
        config_and_state(model)
    del model.blocks[1]
    with pytest.raises(ValueError, match=r"blocks.1.attention.d_head is nothing, by the configuration 4 \("):
        config_and_state(model)
    with pytest.raises(ValueError, match="Linear is no GPT"):
        config_and_state(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: setattr(m.blocks[0].mlp_norm, "eps", 0.5),
            r"mlp_norm.eps is 0.5, by the configuration 1e-05",
        ),
        (lambda m: setattr(m.blocks[1].mlp, "kind", "relu"), "mlp.kind is relu, by the configuration gelu"),
        (lambda m: vars(m.blocks[1].attention).update(n_heads=2, n_kv_heads=2, d_head=8), "d_head is 8, by "),
        (lambda m: setattr(m, "final_norm", nn.RMSNorm(16, 1e-5)), "kind of final_norm is RMSNorm, by the"),
        (lambda m: setattr(m.blocks[0], "pre_norm", False), "pre_norm is False, by the configuration True"),
    ],
)
def test_a_part_that_computes_something_else_with_the_same_shapes_is_refused(change, message):
    """The weights would come back, the outputs would not."""
    model = small_model(norm="layer", mlp="gelu", positions="learned")
    before = logits(model)
    change(model)
    assert not torch.equal(logits(model), before)
    with pytest.raises(ValueError, match=message):
        config_and_state(model)


@pytest.mark.parametrize(
    ("positions", "name", "change"),
    [
        ("rotary", "rotary_cos", lambda table: rotary_angles(8, 4, base=100.0)[0]),
        ("rotary", "rotary_sin", lambda table: torch.cat([table, table])),
        ("sinusoidal", "position_table", lambda table: 2 * table),
    ],
)
def test_a_table_of_positions_that_its_fields_do_not_give_is_refused(positions, name, change):
    """No state holds it, so another would stand there after the trip; a narrower type is no other table."""
    model = small_model(positions=positions)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert config_and_state(copy.deepcopy(model).to(dtype).float())[0] == model.config
    setattr(model, name, change(getattr(model, name)))
    with pytest.raises(ValueError, match=f"{name} is another table, by the configuration one of its fields"):
        config_and_state(model)


def test_what_is_only_for_training_or_the_reader_is_no_difference():
    model = small_model(dropout=0.1)
    model.dropout.p, model.blocks[0].attention.dropout, model.note = 0.0, 0.0, "mine"
    assert config_and_state(model.train())[0] == model.config


# ---- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_tensor_is_rounded_or_refused_by_the_limits_of_its_type(dtype):
    """By IEEE 754 and `torch.finfo`: the largest number is kept, twice it is inf; far below, all is 0."""
    limits = torch.finfo(dtype)
    inside = torch.tensor([limits.max, 1.0, -limits.max], dtype=torch.float64)
    assert torch.equal(rounded("w", inside, dtype).double(), inside)
    for bad in (2 * inside, inside / limits.max * limits.tiny * limits.eps / 4):
        with pytest.raises(ValueError, match=rf"^w, with values up to .* in {dtype}: use torch.float64"):
            rounded("w", bad, dtype)
    usual = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rounded("w", usual, dtype), usual.to(dtype))


def test_what_was_not_finite_before_is_kept_and_does_not_hide_an_overflow():
    bad = torch.tensor([torch.nan, torch.inf, 1.0])
    assert rounded("w", bad, torch.float16).tolist()[1:] == [math.inf, 1.0]
    with pytest.raises(ValueError, match=r"up to 7e\+04"):
        rounded("w", torch.cat([bad, torch.tensor([7e4])]), torch.float16)
    with pytest.raises(ValueError, match=r"up to 1e\+30"):  # its square is above float32
        rounded("w", torch.tensor([1e30]), torch.float16)


@pytest.mark.parametrize(("tensor", "dtype"), [(torch.ones(2), torch.int8), (torch.ones(2), "float16"),
                                               (torch.ones(2, dtype=torch.int8), torch.float32)])  # fmt: skip
def test_weights_are_floats(tensor, dtype):
    with pytest.raises(ValueError, match="weights are kept as floats"):
        rounded("w", tensor, dtype)


# ---- loading ----------------------------------------------------------------------------------


def compiled_inside(model):
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    return model


WRAPPERS = {
    "none": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "a block compiled": compiled_inside,
}


@pytest.mark.parametrize("here", WRAPPERS)
@pytest.mark.parametrize("there", WRAPPERS)
def test_wrappers_on_either_side_make_no_difference(there, here):
    one, two = WRAPPERS[there](small_model()), WRAPPERS[here](small_model(1))
    load_state(two, one.state_dict(), "a file")
    assert torch.equal(logits(two), logits(small_model()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("final_norm.weight"), "it lacks final_norm.weight"),
        (lambda s: s.update(extra=torch.ones(1)), "it has extra, which the model lacks"),
        (lambda s: s.update({"final_norm.weight": torch.ones(3)}), r"weight is \(3,\) there and \(16,\) in"),
        (lambda s: s.update({"final_norm.weight": torch.ones(16).char()}), "is torch.int8 there"),
        (lambda s: s.update({"final_norm.weight": torch.ones(16).double() * 1e39}), "does not survive"),
    ],
)
def test_a_state_that_does_not_fit_is_named_and_nothing_is_loaded(change, message):
    model, state = small_model(), small_model(1).state_dict()
    before = logits(model)
    change(state)
    with pytest.raises(ValueError, match=rf"^a file.*{message}"):
        load_state(model, state, "a file")
    assert torch.equal(logits(model), before)


def test_a_long_list_of_problems_is_cut_and_counted():
    with pytest.raises(ValueError, match=r"\(and 3 more\). Build the model as it was"):
        load_state(small_model(), small_model(n_layers=1).state_dict(), "a file")
