"""Machine code writes what torch writes: what both decoders share is tried in test_decoding.py and test_cross_decoding.py."""

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.decode.speculative import generate_speculative
from llmcourse.fast.decoding import Decoder, begin_decoder, build_decoder
from llmcourse.generate import generate, prefill
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_course_model

pytest.importorskip("numba")
from llmcourse.fast import compiled, machine


def make(**changes) -> GPT:
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(**dict(vocab_size=19, context_length=40, d_model=24, n_layers=2, n_heads=4) | changes)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture
def with_torch(monkeypatch):
    """A function that does something with torch's decoder in the place of machine code."""

    def call(function, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(fast, "compile_decoders", False)
            return function(*arguments, **options)

    return call


def test_the_course_model_writes_the_same_texts(with_torch):
    model, _ = load_course_model()
    for seed in range(20):
        prompt = torch.randint(2048, (1, 1 + seed), generator=torch.Generator().manual_seed(seed))
        text = generate(model, prompt, 127 - seed, temperature=0)
        assert torch.equal(text, with_torch(generate, model, prompt, 127 - seed, temperature=0))
        assert torch.equal(text, generate_speculative(model, prompt, 127 - seed, temperature=0).token_ids)


def test_a_drawn_text_is_the_same_too(with_torch):
    model, _ = load_course_model()
    for options in (dict(temperature=1.0), dict(temperature=0.8, top_k=50), dict(top_p=0.9)):
        text = generate(model, [[5, 6, 7]] * 3, 60, seed=0, **options)
        assert torch.equal(text, with_torch(generate, model, [[5, 6, 7]] * 3, 60, seed=0, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", range(1, 10))
@torch.no_grad()
def test_any_number_of_rows_is_that_of_the_model(n, dtype):
    """Widths that neither four nor a vector divides, and rows that are padded to four."""
    model = make(d_model=22, n_heads=2, d_head=10, d_ff=13, bias=True).to(dtype)
    ids = torch.randint(19, (1, 12), generator=torch.Generator().manual_seed(n))
    decode = compiled.CompiledDecoder(model, model.make_caches(1))
    decode.read(ids[0, : 12 - n], start=0)
    near = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        decode.read(ids[0, 12 - n :], 12 - n), model(ids)[0, -n:], rtol=near, atol=near
    )


def test_what_it_serves():
    model = make()
    assert isinstance(build_decoder(model, model.make_caches(1)), compiled.CompiledDecoder)
    assert begin_decoder(model, torch.zeros(1, compiled.MOST_ROWS, dtype=torch.long)) is not None
    assert begin_decoder(model, torch.zeros(3, compiled.MOST_ROWS, dtype=torch.long)) is None
    assert type(build_decoder(model, model.make_caches(compiled.MOST_ROWS + 1))) is Decoder
    for other in (make().bfloat16(), make(), make(vocab_size=2**17, d_model=240)):
        if other.n_parameters() < compiled.LARGEST and other.token_embedding.weight.dtype == torch.float32:
            other.blocks[0].mlp.up.weight = nn.Parameter(other.blocks[0].mlp.up.weight.T.contiguous().T)
        assert type(build_decoder(other, other.make_caches(1))) is Decoder
    with fast.disabled():
        assert begin_decoder(model, torch.tensor([[1]])) is None


def test_a_long_prompt_is_read_by_the_model_and_goes_on_in_machine_code():
    model = make().double()
    prompt = torch.randint(19, (2, 30))
    with torch.no_grad():
        logits, step = prefill(model, prompt)
        assert isinstance(step, compiled.CompiledDecoder)
        new = torch.tensor([3, 4])
        expected = model(torch.cat([prompt, new[:, None]], dim=1))
    torch.testing.assert_close(logits, expected[:, -2], rtol=0, atol=1e-12)
    torch.testing.assert_close(step(new), expected[:, -1], rtol=0, atol=1e-12)


def test_weights_that_the_model_lets_go_of_stay_where_they_are():
    model = make()
    _, step = prefill(model, torch.tensor([[1, 2]]))
    expected = prefill(model, torch.tensor([[1, 2]]))[1](torch.tensor([3]))
    for parameter in model.parameters():
        parameter.data = torch.full_like(parameter, torch.nan)
    others = [torch.full((n,), torch.nan) for n in (16, 24, 24 * 24, 24 * 72, 24 * 64) for _ in range(50)]
    assert torch.equal(step(torch.tensor([3])), expected)
    del others


def test_an_id_that_the_model_does_not_have_is_an_error_and_touches_nothing():
    model = make()
    _, step = prefill(model, torch.tensor([[1, 2]]))
    for wrong in (19, -1):
        with pytest.raises(IndexError, match="outside the vocabulary"):
            step(torch.tensor([wrong]))
    assert step(torch.tensor([3])).isfinite().all()


@pytest.mark.parametrize("name", ["qkv.weight", "mlp.up.weight", "mlp.down.weight", "attention_norm.weight"])
def test_nan_in_a_weight_is_found(name):
    model = make(bias=False)
    with torch.no_grad():
        next(p for key, p in model.named_parameters() if key.endswith(name)).view(-1)[-1] = torch.nan
    with pytest.raises(ValueError, match="puts out NaN"):
        generate(model, [1, 2, 3], 2, temperature=0)


def test_memory_that_was_not_written_does_not_count(monkeypatch):
    """Keys and values begin as whatever lies in memory, NaN included."""
    model, empty = make(), compiled.Code.empty
    expected = generate(model, [[1, 2], [3, 4]], 20, temperature=0)
    monkeypatch.setattr(compiled.Code, "empty", lambda self, *shape: empty(self, *shape).fill_(torch.nan))
    assert torch.equal(generate(model, [[1, 2], [3, 4]], 20, temperature=0), expected)


def test_the_exponential_is_near_enough():
    x = np.concatenate([np.linspace(-87, 88, 100_001), np.linspace(-1, 1, 10_001)]).astype(np.float32)
    found = machine.njit(lambda x: np.array([machine.exp(value) for value in x]))(x)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=5e-7)
