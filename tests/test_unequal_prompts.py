"""Prompts of unequal length in one batch: each row gets what it would get alone."""

from functools import partial

import pytest
import torch
from torch import nn

from llmcourse.attention import causal_mask, padding_mask
from llmcourse.config import CHOICES
from llmcourse.decode.beam import beam_search
from llmcourse.fast.decoding import is_supported
from llmcourse.generate import generate, generate_tokens, pad_left, prefill, prompt_batch, read
from llmcourse.model import GPT
from llmcourse.sampling import penalize_repetition
from llmcourse.tune.techniques import make_config, make_model

V, CONTEXT = 17, 16
LENGTHS = (4, 1, 7, 2)
KINDS = [
    *(dict(positions=positions) for positions in CHOICES["positions"]),
    dict(positions="learned", scaled_embeddings=True, norm="layer", norm_position="post", bias=True),
    dict(n_kv_heads=2, qk_norm=True),
    dict(token_shift=True),
    dict(embedding_shift=2, value_embeddings=True, bigram_table=True),
]


def make(**changes) -> GPT:
    """Weights so large that the choices are clear, in float64 so that rounding does not change them."""
    torch.manual_seed(0)
    shape = dict(context_length=CONTEXT, d_model=16, n_heads=4, n_layers=2)
    model = make_model(make_config(V, **(shape | changes))).double()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.4)
    return model.eval()


def some_rows(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(V, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("new_tokens", [5, 40])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_row_is_written_as_if_alone_even_beyond_the_context(kind, use_cache, new_tokens):
    model, rows = make(**kind), some_rows()
    together = generate(model, rows, new_tokens, temperature=0, use_cache=use_cache)
    assert [len(row) for row in together] == [length + new_tokens for length in LENGTHS]
    for row, prompt in zip(together, rows, strict=True):
        assert torch.equal(row, generate(model, prompt, new_tokens, temperature=0)[0])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_logits_are_those_of_the_row_alone(kind):
    model, rows = make(**kind), some_rows()
    window, padding = pad_left(rows)
    logits, step = prefill(model, window, padding)
    assert hasattr(step, "read") == is_supported(model)  # a decoder: padding needs no long way
    torch.testing.assert_close(read(model, window, padding), logits)
    new = torch.tensor([3, 4, 5, 6])
    for _ in range(CONTEXT - max(LENGTHS) + 1):
        for i, row in enumerate(rows):
            torch.testing.assert_close(logits[i], read(model, row[None])[0], rtol=1e-9, atol=1e-9)
        if window.shape[1] == CONTEXT:
            break
        logits, window = step(new), torch.cat([window, new[:, None]], dim=1)
        rows = [torch.cat(pair) for pair in zip(rows, new[:, None], strict=True)]
    assert max(map(len, rows)) == CONTEXT  # every position was tried


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_what_stands_in_the_padding_does_not_matter(positions):
    model, (window, padding) = make(positions=positions), pad_left(some_rows())
    hidden = torch.arange(window.shape[1]) < padding[:, None]
    other = torch.where(hidden, (window + 1) % V, window)
    torch.testing.assert_close(read(model, other, padding), read(model, window, padding))
    assert not torch.allclose(read(model, window), read(model, window, padding))  # without the mask it does


def test_the_prompts_are_there_when_one_is_longer_than_the_context():
    model, rows = make(), some_rows((CONTEXT + 5, 3))
    together = generate(model, rows, 9, temperature=0)
    for row, prompt in zip(together, rows, strict=True):
        assert torch.equal(row, generate(model, prompt, 9, temperature=0)[0])


def test_a_penalty_counts_no_padding():
    model, rows = make(), some_rows()
    options = dict(temperature=0, process=partial(penalize_repetition, penalty=2.0))
    together = generate(model, rows, 9, **options)
    for row, prompt in zip(together, rows, strict=True):
        assert torch.equal(row, generate(model, prompt, 9, **options)[0])
    free = generate(model, rows, 9, temperature=0)
    assert any(not torch.equal(*pair) for pair in zip(together, free, strict=True))


@pytest.mark.parametrize("stop_id", range(V))
def test_rows_that_wrote_the_stop_token_are_filled_with_it(stop_id):
    model, rows = make(), some_rows()
    free = [
        row[len(prompt) :].tolist()
        for row, prompt in zip(generate(model, rows, 12, seed=3), rows, strict=True)
    ]
    lengths = [row.index(stop_id) + 1 if stop_id in row else 12 for row in free]
    for row, prompt, new, n in zip(
        generate(model, rows, 12, seed=3, stop_id=stop_id), rows, free, lengths, strict=True
    ):
        expected = (new[:n] + [stop_id] * 12)[: max(lengths)]
        assert row.tolist() == prompt.tolist() + expected


def test_lists_and_tensors_give_the_same_and_equal_rows_a_tensor():
    model, rows = make(), some_rows()
    for mine, theirs in zip(
        generate(model, [row.tolist() for row in rows], 4, seed=0),
        generate(model, rows, 4, seed=0),
        strict=True,
    ):
        assert torch.equal(mine, theirs)
    assert generate(model, some_rows((3, 3)), 4, seed=0).shape == (2, 7)
    assert [len(row) for row in generate(model, rows, 0)] == list(LENGTHS)
    assert torch.equal(
        torch.stack(list(generate_tokens(model, rows, 4, seed=0)), 1)[:, 0],
        torch.stack([row[n] for row, n in zip(generate(model, rows, 4, seed=0), LENGTHS, strict=True)]),
    )


def test_what_needs_equal_prompts_says_so():
    assert torch.equal(prompt_batch([[1, 2], [3, 4]], V), torch.tensor([[1, 2], [3, 4]]))
    with pytest.raises(
        ValueError, match=r"the prompts have 1, 2 tokens: .* equally long here; give one prompt"
    ):
        prompt_batch([[1, 2], [3]], V)
    with pytest.raises(ValueError, match=r"the prompts have 1, 2 tokens"):
        beam_search(make(), [[1, 2], [3]], 3)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(4, 4), (1, 4), (3, 5)])
def test_the_mask_is_the_causal_one_without_the_keys_of_padding(n_queries, n_keys):
    mask = padding_mask(torch.tensor([0, 2]), n_queries, n_keys)
    assert mask.shape == (2, 1, n_queries, n_keys)
    assert torch.equal(mask[0, 0], causal_mask(n_queries, n_keys))
    assert torch.equal(mask[1, 0, :, 2:], causal_mask(n_queries, n_keys)[:, 2:])
    assert not mask[1, 0, :, :2].any()


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_a_row_that_starts_later_is_read_as_the_same_row_cut(positions):
    """Positions of each row: with start (B,), the tokens stand where they would with one start for all."""
    model, ids = make(positions=positions), torch.stack(some_rows((5, 5)))
    at_three, at_zero = (model(ids, start=start) for start in (3, 0))
    by_row = model(ids, start=torch.tensor([3, 0]))
    torch.testing.assert_close(by_row, torch.stack([at_three[0], at_zero[1]]))
    moves = positions in ("learned", "sinusoidal")  # rotary tells distances alone
    assert torch.allclose(at_three, at_zero, atol=1e-5) != moves  # its tables are float32
    with pytest.raises(ValueError, match=r"17 tokens do not fit into the context of 16"):
        model(ids, start=torch.tensor([12, 0]))
