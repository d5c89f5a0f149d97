"""Writing tokens against transformers and loops without a cache."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse.config import CHOICES
from llmcourse.convert import to_transformers
from llmcourse.generate import generate, generate_tokens
from llmcourse.model import GPT, ModelConfig
from llmcourse.sampling import choose_next, penalize_repetition

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


def prompts(B=2, T=4):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(temperature=-0.5), r"temperature=-0.5: must be >= 0; 0 is greedy"),
        (dict(top_k=0), r"top_k=0: at least one token must stay; use None to keep all"),
        (dict(top_p=0.0), r"top_p=0.0: must be in \(0, 1\]"),
        (dict(top_p=1.5), r"top_p=1.5: must be in \(0, 1\]"),
        (dict(min_p=-0.1), r"min_p=-0.1: must be in \[0, 1\], a share"),
        (dict(min_p=float("nan")), r"min_p=nan: must be in \[0, 1\], a share"),
    ],
)
def test_wrong_options_are_named_and_the_mode_is_restored(options, message):
    with pytest.raises(ValueError, match=message):
        choose_next(torch.zeros(1, V), **options)
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
    [
        {},
        dict(temperature=0.7),
        dict(top_k=5),
        dict(top_p=0.8),
        dict(min_p=0.2),
        dict(temperature=1.5, top_k=9, top_p=0.7, min_p=0.1),
    ],
)
def test_sampled_writing_equals_transformers_with_the_same_random_numbers(options, preset):
    model, theirs = pair_of_models(preset)
    prompt = prompts()
    torch.manual_seed(5)
    their_options = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=True, top_k=0)
    expected = theirs.generate(prompt, **(their_options | options))
    assert torch.equal(generate(model, prompt, 30, seed=5, **options), expected)


@pytest.mark.parametrize("preset", [ModelConfig.gpt2, ModelConfig.llama])
@pytest.mark.parametrize("sampling", [dict(temperature=0), dict(top_k=5)])
def test_writing_with_a_penalty_equals_transformers(preset, sampling):
    model, theirs = pair_of_models(preset)
    prompt = prompts()
    torch.manual_seed(5)
    their_options = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=30, repetition_penalty=1.4)
    draw = dict(do_sample=False) if "temperature" in sampling else dict(do_sample=True, **sampling)
    expected = theirs.generate(prompt, **their_options, **draw)
    process = partial(penalize_repetition, penalty=1.4)
    assert torch.equal(generate(model, prompt, 30, seed=5, process=process, **sampling), expected)


# --- a function that changes logits ------------------------------------------------------------


@pytest.mark.parametrize("use_cache", [True, False])
def test_process_sees_every_id_so_far_even_beyond_the_context(use_cache):
    model, seen = small_model(context_length=6), []

    def process(token_ids, logits):
        seen.append(token_ids)
        return logits

    written = generate(model, prompts(), 10, seed=2, process=process, use_cache=use_cache)
    assert torch.equal(written, generate(model, prompts(), 10, seed=2))
    assert [ids.shape[1] for ids in seen] == list(range(4, 14))
    assert all(torch.equal(ids, written[:, : ids.shape[1]]) for ids in seen)


def test_process_may_write_into_its_logits_and_what_it_forbids_never_comes():
    model = small_model()

    def only_even(token_ids, logits):
        logits[:, 1::2] = -torch.inf
        return logits

    written = generate(model, prompts(), 30, temperature=3.0, seed=0, process=only_even)
    assert (written[:, 4:] % 2 == 0).all()
    assert len(written[:, 4:].unique()) > 4
    free = generate(model, prompts(), 30, temperature=3.0, seed=0)
    assert (free[:, 4:] % 2 == 1).any()
    assert torch.equal(generate(model, prompts(), 30, temperature=3.0, seed=0), free)  # nothing was kept


def test_what_process_forbids_is_gone_before_top_p_counts():
    """So that the set holds p of what may come, as the processors of transformers do it."""
    model, best = small_model(), []

    def forbid_the_best(token_ids, logits):
        best.append(logits.argmax(-1))
        return logits.scatter(-1, best[-1][:, None], -torch.inf)

    written = generate(model, prompts(), 20, top_p=1e-6, process=forbid_the_best)
    assert (written[:, 4:] != torch.stack(best, dim=1)).all()


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (lambda ids, logits: logits * -torch.inf, r"leaves no token to row 0 after 4 tokens: all logits"),
        (lambda ids, logits: logits[:1], r"was given logits \(2, 17\) and returned \(1, 17\): return all"),
        (lambda ids, logits: None, r"was given logits \(2, 17\) and returned NoneType: return all"),
    ],
)
def test_what_process_may_not_do(process, message):
    model = small_model().train()
    with pytest.raises(ValueError, match=message):
        generate(model, prompts(), 3, process=lambda ids, logits: process(ids, logits.abs()))
    assert model.training


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


def test_of_a_long_prompt_the_last_tokens_that_fit_are_read():
    model, long = small_model(), prompts(T=20)
    written = generate(model, long, 1, temperature=0)
    assert torch.equal(written[:, :20], long)
    assert torch.equal(written[:, 20:], generate(model, long[:, -12:], 1, temperature=0)[:, 12:])
