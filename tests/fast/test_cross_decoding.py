"""The fast step after a source computes what the model computes."""

import importlib.util
import itertools

import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.config import CHOICES
from llmcourse.encoder_decoder import EncoderDecoder
from llmcourse.fast.cross_decoding import TargetDecoder, build_target_decoder, is_supported
from llmcourse.pointer import PointerGenerator
from llmcourse.seq2seq import prefill_target

V = 13
DECODERS = ["torch", *(["machine code"] if importlib.util.find_spec("numba") else [])]
SOURCE, MASK = torch.tensor([[5, 6, 7], [9, 3, 2]]), torch.tensor([[1, 1, 1], [1, 1, 0]])


@pytest.fixture(params=DECODERS, autouse=True)
def decoder(request, monkeypatch):
    monkeypatch.setattr(fast, "compile_decoders", request.param == "machine code")
    return request.param


def small_model(kind=EncoderDecoder, **options):
    torch.manual_seed(0)
    sizes = dict(vocab_size=V, context_length=7, d_model=16, n_heads=4, n_layers=2)
    model = kind(kind.config_type(**(sizes | options))).double().eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return model


def assert_equal_steps(model):
    ids = torch.randint(V, (4, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        memory = model.encode(SOURCE, MASK)
        decode = build_target_decoder(model, memory)
        twice, order = [0, 0, 1, 1], [1, 0, 2, 2]
        decode(ids[::2, 0])  # two targets, then two of each source, then in another order
        decode.reorder(twice)
        expected = model.decode(torch.cat([ids[[0, 0, 2, 2], :1], ids[:, 1:]], dim=1), memory)
        for position in range(1, 4):
            torch.testing.assert_close(decode(ids[:, position]), expected[:, position], rtol=0, atol=1e-11)
        decode.reorder(order)
        rows = torch.cat([ids[[0, 0, 2, 2], :1], ids[:, 1:4]], dim=1)[order]
        expected = model.decode(torch.cat([rows, ids[:, 4:]], dim=1), memory)
        for position in range(4, 7):
            torch.testing.assert_close(decode(ids[:, position]), expected[:, position], rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="the context of 7 tokens is full"):
        decode(ids[:, 0])


@pytest.mark.parametrize("parts", list(itertools.product(*CHOICES.values())), ids="-".join)
def test_every_kind_of_part(parts):
    assert_equal_steps(small_model(**dict(zip(CHOICES, parts, strict=True)), bias=parts[0] == "layer"))


@pytest.mark.parametrize(
    "options",
    [
        dict(n_kv_heads=1),
        dict(n_kv_heads=2, qk_norm=True),
        dict(qk_norm=True, positions="learned"),
        dict(d_head=6),
        dict(scaled_embeddings=True, bias=True),
        dict(tied_embeddings=False, unembedding_bias=True, source_vocab_size=11),
    ],
    ids=str,
)
def test_every_shape(options):
    assert_equal_steps(small_model(**options))


@pytest.mark.parametrize("options", [dict(), dict(unembedding_bias=True), dict(copy=False)], ids=str)
def test_a_model_that_copies(options):
    assert_equal_steps(small_model(PointerGenerator, **options))


def test_both_decoders_are_tried_here(decoder):
    model = small_model()
    built = build_target_decoder(model, model.encode(SOURCE))
    assert (type(built) is TargetDecoder) == (decoder == "torch")


def test_fewer_sources_go_on():
    model, ids = small_model(), torch.randint(V, (2, 7))
    with torch.no_grad():
        decode = build_target_decoder(model, model.encode(SOURCE, MASK))
        decode(ids[:, 0])
        decode.reorder([1, 1, 1])
        expected = model.decode(ids[1:].expand(3, -1), model.encode(SOURCE[1:, :2]))
        for position in range(1, 7):
            mine = decode(ids[1, position].expand(3))
            torch.testing.assert_close(mine, expected[:, position], rtol=0, atol=1e-11)


def test_what_it_does_not_know_goes_the_long_way():
    model = small_model()
    memory = model.encode(SOURCE)
    assert is_supported(model)
    with fast.disabled():
        assert build_target_decoder(model, memory) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_supported(model)
    handle = model.blocks[0].register_forward_hook(lambda *_: None)
    assert not is_supported(model)
    handle.remove()
    model.unembedding = nn.Sequential(model.unembedding)
    assert build_target_decoder(model, memory) is None


def test_a_weight_that_changes_counts_from_the_next_token_on():
    model = small_model()
    logits, step = prefill_target(model, SOURCE, start_id=0)
    with torch.no_grad():
        model.unembedding.weight.mul_(0)
    assert logits.abs().max() > 0
    assert step(torch.tensor([1, 2])).abs().max() == 0
