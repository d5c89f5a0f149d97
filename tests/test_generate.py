"""Choosing and writing tokens against transformers, the softmax, and loops without a cache."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TopKLogitsWarper, TopPLogitsWarper

from llmcourse.config import CHOICES
from llmcourse.convert import to_transformers
from llmcourse.generate import choose_next, generate, generate_tokens, keep_top_k, keep_top_p
from llmcourse.model import GPT, ModelConfig

V = 17
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def small_model(config=None, **options):
    """Weights so large that the choices are clear, in float64 so that rounding does not change them."""
    torch.manual_seed(0)
    config = ModelConfig if config is None else config
    model = GPT(config(V, **(dict(context_length=12, d_model=16, n_layers=2) | options))).double()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.4)
    return model.eval()


def pair_of_models(preset):
    """Our model and the same one in transformers, whose weights begin in float32."""
    model = small_model(preset, context_length=40).float()
    return model.double(), to_transformers(model).double()


def some_logits(*shape, seed=0, spread=3.0):
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prompts(B=2, T=4):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


# --- choosing one token ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 50, 80])
def test_keep_top_k_equals_transformers(k):
    logits = some_logits(20, 50)
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(top_k=k)(None, logits))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_keep_top_p_equals_transformers(p, spread):
    logits = some_logits(20, 50, spread=spread)
    assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(top_p=p)(None, logits))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_are_chosen_from_as_their_values_in_double(dtype):
    """A running sum that is kept in bfloat16 has 2 to 3 digits."""
    logits = some_logits(1, 50_000, spread=2.0).to(dtype)
    for p in (0.5, 0.9, 0.99):
        kept, wanted = (keep_top_p(x, p).isfinite().sum().item() for x in (logits, logits.double()))
        assert kept == pytest.approx(wanted, abs=3)  # the threshold's neighbours, by float32
    few = torch.tensor([[1.0, 200.0]], dtype=dtype)
    assert choose_next(few, temperature=1e-3).tolist() == [1]  # 200,000 is beyond float16


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8, 0.95])
def test_keep_top_p_keeps_the_smallest_set_that_reaches_p(p):
    for logits in some_logits(20, 30):
        probabilities = logits.softmax(-1)
        kept = keep_top_p(logits, p).isfinite()
        assert probabilities[kept].sum() >= p
        assert probabilities[kept].sum() - probabilities[kept].min() < p  # without its last member it fails
        assert kept.all() or probabilities[kept].min() > probabilities[~kept].max()


@pytest.mark.parametrize("size", [1000, 50000])
def test_top_p_of_one_keeps_every_token_in_single_precision(size):
    logits = some_logits(size, spread=4.0).float()
    assert torch.equal(keep_top_p(logits, 1.0), logits)


def test_temperature_zero_takes_the_largest():
    logits = some_logits(100, V)
    expected = logits.numpy().argmax(axis=-1).tolist()
    assert choose_next(logits, temperature=0).tolist() == expected
    assert choose_next(logits, temperature=1.0, top_k=1).tolist() == expected
    assert choose_next(logits, temperature=1.0, top_p=1e-9).tolist() == expected
    assert choose_next(logits, temperature=1e-4).tolist() == expected


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("options", [{}, dict(top_k=4), dict(top_p=0.8), dict(top_k=5, top_p=0.9)])
def test_frequencies_match_the_softmax(temperature, options):
    logits = torch.tensor([1.2, 0.1, -0.5, 0.7, 0.0, -1.0, 0.4], dtype=torch.float64)
    weights = (logits / temperature).exp()
    order = logits.argsort(descending=True)
    weights[order[options.get("top_k", 7) :]] = 0.0
    reached = 0.0
    probabilities = weights / weights.sum()
    for token in order:  # top-p works on what top-k has left
        if reached >= options.get("top_p", 1.0):
            weights[token] = 0.0
        reached += probabilities[token].item()
    probabilities = weights / weights.sum()

    n = 20000
    generator = torch.Generator().manual_seed(0)
    chosen = choose_next(logits.expand(n, 7), temperature, generator=generator, **options)
    counts = torch.bincount(chosen, minlength=7)
    possible = probabilities > 0
    assert (counts[~possible] == 0).all()
    expected = n * probabilities[possible]
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum().item()
    assert chi_square < 22.5  # exceeded once in 1000 times with 6 degrees of freedom, more rarely with fewer


def test_rows_are_drawn_apart():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [-torch.inf, -torch.inf, 0.0]])
    assert choose_next(logits).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(temperature=-0.5), r"temperature=-0.5: must be >= 0; 0 is greedy"),
        (dict(top_k=0), r"top_k=0: at least one token must stay; use None to keep all"),
        (dict(top_p=0.0), r"top_p=0.0: must be in \(0, 1\]"),
        (dict(top_p=1.5), r"top_p=1.5: must be in \(0, 1\]"),
    ],
)
def test_wrong_options_are_named_and_the_mode_is_restored(options, message):
    with pytest.raises(ValueError, match=message):
        choose_next(some_logits(1, V), **options)
    model = small_model().train()
    with pytest.raises(ValueError, match=message):
        generate(model, prompts(), 2, **options)
    assert model.training


@pytest.mark.parametrize("empty", [[], [[], []]])
def test_an_empty_prompt_is_refused(empty):
    with pytest.raises(
        ValueError, match=r"the prompt has no token: give at least one, such as <\|endoftext\|>"
    ):
        generate(small_model(), torch.tensor(empty, dtype=torch.long), 2)


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_greedy_writing_is_the_argmax_of_the_whole_text_each_time(positions):
    model = small_model(positions=positions)
    written = prompts()
    with torch.no_grad():
        for _ in range(8):
            written = torch.cat([written, model(written)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, prompts(), 8, temperature=0), written)
    assert len(set(written[0, 4:].tolist())) > 2  # not one token for ever


@pytest.mark.parametrize("new_tokens", [6, 40])
@pytest.mark.parametrize("context_length", [1, 2, 7, 12])
@pytest.mark.parametrize(
    "options", [dict(temperature=0), dict(seed=3), dict(seed=3, top_k=6, temperature=2.0)]
)
@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_cache_changes_nothing_even_beyond_the_context(positions, options, context_length, new_tokens):
    model = small_model(positions=positions, context_length=context_length, n_kv_heads=2)
    cached = generate(model, prompts(), new_tokens, **options)
    assert cached.shape == (2, 4 + new_tokens)
    assert torch.equal(cached[:, :4], prompts())
    assert torch.equal(cached, generate(model, prompts(), new_tokens, **options, use_cache=False))


def test_when_the_context_is_full_the_older_half_is_forgotten():
    model = small_model(context_length=8)
    written = generate(model, prompts(B=1, T=5), 20, temperature=0)[0]
    window = list(written[:5])
    for token in written[5:]:
        if len(window) == 9:  # 8 fit: half of them stay, beside the token that did not fit
            window = window[-5:]
        with torch.no_grad():
            assert model(torch.stack(window)[None])[0, -1].argmax() == token
        window.append(token)


def test_of_a_prompt_longer_than_the_context_the_end_counts():
    model = small_model(context_length=6)
    long = prompts(T=10)
    written = generate(model, long, 9, temperature=0)
    assert torch.equal(written[:, :10], long)
    assert torch.equal(written[:, 4:], generate(model, long[:, 4:], 9, temperature=0))


@pytest.mark.parametrize("preset", [ModelConfig.gpt2, ModelConfig.llama])
def test_greedy_writing_equals_transformers(preset):
    model, theirs = pair_of_models(preset)
    prompt = prompts(B=4)
    options = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False)
    expected = theirs.generate(prompt, **options)
    assert torch.equal(generate(model, prompt, 30, temperature=0), expected)
    assert len(expected[:, 4:].unique()) > 2  # not one token for ever


@pytest.mark.parametrize("preset", [ModelConfig.gpt2, ModelConfig.llama])
@pytest.mark.parametrize(
    "options",
    [{}, dict(temperature=0.7), dict(top_k=5), dict(top_p=0.8), dict(temperature=1.5, top_k=9, top_p=0.7)],
)
def test_sampled_writing_equals_transformers_with_the_same_random_numbers(options, preset):
    model, theirs = pair_of_models(preset)
    prompt = prompts()
    torch.manual_seed(5)
    their_options = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=True, top_k=0)
    expected = theirs.generate(prompt, **(their_options | options))
    assert torch.equal(generate(model, prompt, 30, seed=5, **options), expected)


def test_a_seed_repeats_and_leaves_the_global_random_numbers_alone():
    model = small_model()
    torch.manual_seed(0)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    first = generate(model, prompts(), 10, temperature=3.0, seed=1)
    assert torch.equal(torch.rand(1), untouched)
    assert torch.equal(first, generate(model, prompts(), 10, temperature=3.0, seed=1))
    assert not torch.equal(first, generate(model, prompts(), 10, temperature=3.0, seed=2))


def test_a_row_of_a_batch_is_written_as_if_alone():
    model = small_model()
    batch = generate(model, prompts(B=5), 20, temperature=0)
    for row, prompt in zip(batch, prompts(B=5), strict=True):
        assert torch.equal(generate(model, prompt, 20, temperature=0)[0], row)


def test_lists_tensors_and_one_row_are_the_same_prompt():
    model = small_model()
    expected = generate(model, torch.tensor([[1, 2, 3]]), 4, temperature=0)
    assert expected.shape == (1, 7)
    for same in ([1, 2, 3], [[1, 2, 3]], torch.tensor([1, 2, 3])):
        assert torch.equal(generate(model, same, 4, temperature=0), expected)


def test_stream_yields_the_columns_of_generate():
    model = small_model()
    columns = list(generate_tokens(model, prompts(), 9, seed=4))
    assert all(column.shape == (2,) for column in columns)
    assert torch.equal(torch.stack(columns, dim=1), generate(model, prompts(), 9, seed=4)[:, 4:])


@pytest.mark.parametrize("new_tokens", [0, 1, 5])
def test_the_number_of_new_tokens_is_kept(new_tokens):
    assert generate(small_model(), prompts(), new_tokens, seed=0).shape == (2, 4 + new_tokens)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stop_id", range(V))
def test_rows_that_wrote_the_stop_token_are_filled_with_it(stop_id, device):
    model, prompt = small_model().to(device), prompts(B=4).to(device)
    options = dict(max_new_tokens=30, temperature=3.0, seed=2)
    free = generate(model, prompt, **options)[:, 4:].tolist()
    lengths = [row.index(stop_id) + 1 if stop_id in row else 30 for row in free]
    expected = [
        (row[:length] + [stop_id] * 30)[: max(lengths)] for row, length in zip(free, lengths, strict=True)
    ]
    stopped = generate(model, prompt, **options, stop_id=stop_id)
    assert stopped[:, 4:].tolist() == expected
    assert torch.equal(stopped[:, :4], prompt)


def test_a_stop_token_in_the_prompt_does_not_stop():
    model = small_model()
    free = generate(model, [[1, 2, 3]], 5, temperature=0)[0, 3:].tolist()
    stop_id = next(token for token in range(V) if token not in free)
    assert generate(model, [[1, stop_id, 3]], 5, temperature=0, stop_id=stop_id).shape[1] > 4


# --- leaving the model as it was ---------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stop_id", [None, 0, 1, 2])
def test_the_mode_is_restored(training, stop_id):
    model = small_model().train(training)
    generate(model, prompts(), 30, seed=0, stop_id=stop_id)
    assert model.training == training
    assert all(module.training == training for module in model.modules())


def test_the_mode_is_restored_when_the_reader_stops_early():
    model = small_model().train()
    tokens = generate_tokens(model, prompts(), 30, seed=0)
    next(tokens)
    tokens.close()
    assert model.training


def test_dropout_is_off_while_writing():
    model = small_model(dropout=0.5).train()
    written = generate(model, prompts(), 8, temperature=0)
    assert torch.equal(written, generate(model.eval(), prompts(), 8, temperature=0))


def test_gradients_are_off_inside_and_on_again_between_two_tokens():
    model, inside = small_model(), []
    model.register_forward_hook(lambda *_: inside.append(torch.is_grad_enabled()))
    for _ in generate_tokens(model, prompts(), 3, seed=0):
        assert torch.is_grad_enabled()
    assert inside == [False, False, False]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [[1, 2], (1, 2), torch.tensor([1, 2], dtype=torch.int32), np.array([1, 2]), [[1, 2]], range(1, 3)],
)
def test_one_prompt_in_every_form_is_the_same(prompt):
    model = small_model()
    assert torch.equal(generate(model, prompt, 3, seed=0), generate(model, torch.tensor([[1, 2]]), 3, seed=0))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            [[1, 2, 3], [4, 5]],
            r"the prompts have 2, 3 tokens: rows of one batch are equally long; .*equal length",
        ),
        ([torch.tensor([1]), torch.tensor([2, 3])], r"the prompts have 1, 2 tokens"),
        ([[1, 2], []], r"the prompt has no token: give at least one"),
        ([1, V], rf"prompt 0\[1\] is {V}: give ids from 0 to {V - 1}"),
        ([[1, 2], [3, -1]], rf"prompt 1\[1\] is -1: give ids from 0 to {V - 1}"),
        ([1.5, 2.0], r"prompt 0\[0\] is 1.5: give ids"),
        (torch.tensor([0.5]), r"prompt 0\[0\] is 0.5: give ids"),
        ("ROMEO", r"the prompt is 'ROMEO': give its ids, tokenizer.encode"),
        (5, r"the prompt is 5: give a row"),
        (torch.ones(1, 2, 3, dtype=torch.long), r"prompt 0 has the shape \(2, 3\)"),
    ],
)
@pytest.mark.parametrize("write", [generate, lambda *a: list(generate_tokens(*a))])
def test_prompts_that_cannot_be_read_are_refused_by_place(prompt, message, write):
    with pytest.raises(ValueError, match=message):
        write(small_model(), prompt, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_new_tokens=-1), r"max_new_tokens=-1 must be a whole number and at least 0"),
        (dict(max_new_tokens=2.5), r"max_new_tokens=2.5 must be a whole number"),
        (dict(temperature=float("nan")), r"temperature=nan: must be >= 0"),
        (dict(temperature=float("inf")), r"temperature=inf: must be >= 0"),
        (dict(top_k=2.5), r"top_k=2.5: .* whole number"),
        (dict(top_k=-3), r"top_k=-3: at least one token must stay"),
        (dict(top_p=float("nan")), r"top_p=nan: must be in \(0, 1\]"),
        (dict(top_p=-0.1), r"top_p=-0.1"),
        (dict(stop_id=V), rf"stop_id\[0\] is {V}: give ids from 0 to {V - 1}"),
        (dict(stop_id=-1), r"stop_id\[0\] is -1"),
    ],
)
def test_options_that_mean_nothing_are_named_with_their_limits(options, message):
    model = small_model().train()
    with pytest.raises(ValueError, match=message):
        generate(model, prompts(), **(dict(max_new_tokens=2) | options))
    assert model.training


def test_no_new_token_gives_the_prompt_and_a_whole_number_may_be_a_float():
    assert torch.equal(generate(small_model(), prompts(), 0), prompts())
    assert generate(small_model(), prompts(), 2.0, top_k=3.0, seed=0).shape == (2, 6)


@pytest.mark.parametrize("temperature", [1e-40, 1e-20, 1e-7])
def test_a_temperature_near_zero_is_greedy_and_does_not_overflow(temperature):
    logits = some_logits(50, V).float() * 100
    assert torch.equal(choose_next(logits, temperature), logits.argmax(-1))


def test_of_a_long_prompt_the_last_tokens_that_fit_are_read():
    model, long = small_model(), prompts(T=20)
    written = generate(model, long, 1, temperature=0)
    assert torch.equal(written[:, :20], long)
    assert torch.equal(written[:, 20:], generate(model, long[:, -12:], 1, temperature=0)[:, 12:])
