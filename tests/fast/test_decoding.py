"""One position at a time against the model's own forward pass, for every configuration."""

import importlib.util
import itertools

import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.config import CHOICES
from llmcourse.fast.decoding import Decoder, build_decoder, is_supported
from llmcourse.finetune.lora import add_lora
from llmcourse.generate import generate, generate_tokens, prefill
from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import RotaryScaling
from llmcourse.tune.techniques import make_config, make_model

V, CONTEXT = 19, 11
DECODERS = ["torch", *(["machine code"] if importlib.util.find_spec("numba") else [])]
PRESETS = [ModelConfig.gpt2, ModelConfig.llama, ModelConfig.transformer_2017]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TECHNIQUES = [  # they go the long way, through the model
    dict(token_shift=True),
    dict(embedding_shift=2),
    dict(value_embeddings=True),
    dict(bigram_table=True),
    dict(logit_cap=1.5),
    dict(token_shift=True, embedding_shift=1, value_embeddings=True, bigram_table=True, logit_cap=2.0),
]


@pytest.fixture(params=DECODERS, autouse=True)
def decoder(request, monkeypatch):
    monkeypatch.setattr(fast, "compile_decoders", request.param == "machine code")
    return request.param


def make(preset=make_config, **changes) -> GPT:
    """A small model whose parameters are all random, gains, biases and shifts too."""
    torch.manual_seed(0)
    shape = dict(context_length=CONTEXT, d_model=24, n_heads=4, n_layers=2) | changes
    model = make_model(preset(V, **shape)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def ids(rows=2, length=3, seed=1):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def both(model: GPT, prompt: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (logits step by step, those of the model with its caches) up to a full context."""
    caches = model.make_caches(len(prompt))
    logits, step = prefill(model, prompt)
    pairs = [(logits, model(prompt, caches=caches)[:, -1])]
    for position in range(prompt.shape[1], model.config.context_length):
        new = ids(len(prompt), 1, seed=position).to(prompt.device)
        pairs.append((step(new[:, 0]), model(new, caches=caches)[:, -1]))
    return pairs


def assert_equal(model: GPT, prompt: torch.Tensor) -> None:
    """To rounding: some processors take another product of matrices for one column than for two."""
    for mine, whole in both(model, prompt):
        near = 64 * torch.finfo(mine.dtype).eps
        torch.testing.assert_close(mine, whole, rtol=near, atol=near)


# --- equal to the model ------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("mlp", CHOICES["mlp"])
@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize(
    ("norm", "place"), list(itertools.product(CHOICES["norm"], CHOICES["norm_position"]))
)
def test_logits_are_those_of_the_model(norm, place, positions, mlp, rows):
    model = make(norm=norm, norm_position=place, positions=positions, mlp=mlp, bias=rows == 1)
    assert is_supported(model)
    assert_equal(model, ids(rows))


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shared_heads_and_normed_queries_are_equal_too(n_kv_heads, qk_norm, positions, dtype):
    model = make(n_kv_heads=n_kv_heads, qk_norm=qk_norm, positions=positions).to(dtype)
    assert is_supported(model)
    assert_equal(model, ids(2))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        dict(d_head=16, n_kv_heads=2, qk_norm=True, norm_eps=0.1),
        dict(d_head=2, n_heads=5),
        dict(rotary_scaling=RotaryScaling(original_context=8), rotary_base=50.0, d_ff=20),
    ],
)
def test_heads_of_their_own_width_and_stretched_positions_are_equal_too(changes, rows):
    model = make(**changes).double()
    assert is_supported(model)
    for mine, whole in both(model, ids(rows)):
        torch.testing.assert_close(mine, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "changes", [{}, dict(tied_embeddings=False), dict(tied_embeddings=True, dropout=0.3)]
)
def test_presets_are_equal(preset, changes, device):
    model = make(preset, **changes).to(device)
    assert is_supported(model)
    for mine, whole in both(model, ids(2, length=1).to(device)):
        torch.testing.assert_close(mine, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    model = make(ModelConfig.gpt2).to(dtype)
    for mine, whole in both(model, ids(2)):
        torch.testing.assert_close(mine, whole)


def test_a_larger_model_and_two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = make(ModelConfig.gpt2, context_length=20, d_model=192, n_heads=6)
        assert_equal(model, ids(1, 8))
        assert_equal(model, ids(2, 8))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_whole_text_gives_the_same_logits(preset):
    model = make(preset).double()
    text = ids(2, CONTEXT)
    logits, step = prefill(model, text[:, :4])
    steps = [logits, *(step(text[:, i]) for i in range(4, CONTEXT))]
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(steps, dim=1), model(text)[:, 3:])


def test_both_decoders_are_tried_here(decoder):
    model = make()
    assert (type(build_decoder(model, model.make_caches(1))) is Decoder) == (decoder == "torch")


# --- several positions at once -----------------------------------------------------------------


@torch.no_grad()
def assert_reads_are_equal(model: GPT) -> None:
    """Several positions of one text, some of them read again with other tokens, against the model."""
    prompt, caches = ids(1), model.make_caches(1)
    _, decode = prefill(model, prompt)
    model(prompt, caches=caches)
    for start, T in [(3, 2), (5, 4), (6, 1), (7, 4), (4, 5), (9, 2)]:  # 6, 7 and 4 are before the end
        new = ids(1, T, seed=start)
        for cache in caches:
            cache.length = start
        mine, whole = decode.read(new[0], start), model(new, caches=caches)[0]
        torch.testing.assert_close(mine, whole, rtol=0, atol=1e-12)
        assert decode.position == start + T


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize(
    ("norm", "place"), list(itertools.product(CHOICES["norm"], CHOICES["norm_position"]))
)
def test_several_positions_are_read_as_by_the_model(norm, place, positions, mlp):
    for bias in (False, True):
        changes = dict(norm=norm, norm_position=place, positions=positions, mlp=mlp, bias=bias)
        assert_reads_are_equal(make(**changes).double())


def test_several_positions_with_shared_heads_and_normed_queries_are_read_as_by_the_model():
    for changes in (dict(n_kv_heads=1), dict(qk_norm=True, n_kv_heads=2), dict(d_head=10, n_heads=3)):
        assert_reads_are_equal(make(**changes).double())


def test_what_was_read_beyond_the_place_to_go_on_from_is_forgotten():
    model = make().double()
    _, decode = prefill(model, ids(1))
    expected = decode(ids(1, 1)[0])
    decode.read(ids(1, 6)[0], start=3)
    torch.testing.assert_close(decode.read(ids(1, 1)[0], start=3), expected, rtol=0, atol=1e-12)


# --- the long way ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("switches", TECHNIQUES, ids=lambda switches: "+".join(switches))
def test_what_is_not_supported_goes_through_the_model(switches, rows):
    model = make(**switches)
    assert not is_supported(model)
    assert_equal(model, ids(rows))


def test_every_field_of_the_configuration_is_tried_here():
    """A new one must be tried above before it may be decoded here."""
    tried = {"vocab_size", "context_length", "d_model", "n_heads", "n_layers", "norm", "norm_position", "positions",
             "mlp", "bias", "n_kv_heads", "qk_norm", "d_head", "norm_eps", "rotary_scaling", "tied_embeddings",
             "dropout", "scaled_embeddings", "d_ff", "rotary_base"}  # fmt: skip
    assert set(ModelConfig.__dataclass_fields__) == tried


def test_switched_off_it_goes_the_long_way():
    model = make()
    expected = generate(model, ids(2), 6, seed=0)
    with fast.disabled():
        assert not is_supported(model)
        assert_equal(model, ids(2))
        assert torch.equal(generate(model, ids(2), 6, seed=0), expected)


def test_hooks_are_called_at_each_token_and_may_change_the_text():
    model, seen = make(), []
    free = generate(model, ids(1), 6, temperature=0)

    def double(module, arguments, output):
        seen.append(output.shape[1])
        return output * -2

    handle = model.blocks[0].mlp.register_forward_hook(double)
    assert not is_supported(model)
    assert not torch.equal(generate(model, ids(1), 6, temperature=0), free)
    assert seen == [3, 1, 1, 1, 1, 1]
    handle.remove()
    assert is_supported(model)
    handle = model.blocks[1].register_forward_pre_hook(lambda module, arguments: None)
    assert not is_supported(model)


def test_adapters_count():
    model = add_lora(make(), rank=2)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter)
    assert not is_supported(model)
    assert_equal(model, ids(2))


def test_autocast_goes_the_long_way():
    model = make(ModelConfig.gpt2)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_supported(model)
        assert_equal(model, ids(2))
    assert is_supported(model)


# --- what it leaves behind ---------------------------------------------------------------------


def test_a_full_context_is_an_error():
    for model in (make(), make(logit_cap=1.0)):
        _, step = prefill(model, ids(1, CONTEXT - 1))
        step(ids(1, 1)[0])
        with pytest.raises(ValueError, match="context of 11"):
            step(ids(1, 1)[0])


def test_logits_of_one_step_are_not_overwritten_by_the_next():
    _, step = prefill(make(), ids())
    first = step(ids(2, 1)[:, 0])
    kept = first.clone()
    step(ids(2, 1, seed=5)[:, 0])
    assert torch.equal(first, kept)


def test_weights_changed_between_two_tokens_count():
    model = make()
    tokens = generate_tokens(model, ids(1), 6, temperature=0)
    next(tokens), next(tokens)
    with torch.no_grad():
        model.unembedding.weight.neg_()
    changed = [int(token) for token in tokens]
    assert changed != generate(make(), ids(1), 6, temperature=0)[0, 5:].tolist()


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_every_weight_that_changes_counts_from_the_next_token_on(preset):
    model = make(preset).double()
    caches = model.make_caches(1)
    model(ids(1), caches=caches)
    _, step = prefill(model, ids(1))
    for position in range(3, 8):
        for parameter in model.parameters():  # gains and biases too
            parameter.mul_(0.9).add_(0.01)
        new = ids(1, 1, seed=position)
        torch.testing.assert_close(step(new[0]), model(new, caches=caches)[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [dict(temperature=0), dict(seed=0)])
def test_written_tokens_can_be_trained_on(options):
    model = make()
    for written in (
        torch.stack(list(generate_tokens(model, ids(), 4, **options)), 1),
        generate(model, ids(), 4, **options),
    ):
        assert not written.is_inference()
        model(written).sum().backward()
    assert all(not parameter.is_inference() for parameter in model.parameters())
