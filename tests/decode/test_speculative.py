"""Speculation against `generate`, the exact distribution, and drafts whose worth is known."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from llmcourse import fast
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.decode.drafts import Counted, Guess, draw, guess, own_text, propose
from llmcourse.decode.speculative import check_by_chance, generate_speculative
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.ngrams import NGramModel
from llmcourse.pretrained import load_course_model
from llmcourse.sampling import next_probabilities
from llmcourse.tune.techniques import TechniqueGPT, make_config

V = 7
PRESETS = [ModelConfig.gpt2, ModelConfig.llama, ModelConfig.transformer_2017]
CHOICES = [dict(), dict(temperature=0.6), dict(temperature=1.5, top_k=3), dict(top_p=0.7), dict(min_p=0.3)]


def make(preset=ModelConfig.llama, vocab_size=V, std=0.4, **changes) -> GPT:
    """A small model of random weights in float64, so that rounding decides nothing."""
    torch.manual_seed(0)
    shape = dict(context_length=12, d_model=16, n_heads=2, n_layers=1) | changes
    model = GPT(preset(vocab_size, **shape)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def itself(model: GPT):
    """The model as its own draft, for texts within its context."""

    known = {}

    @torch.no_grad()
    def draft(token_ids):
        if (text := tuple(token_ids)) not in known:
            known[text] = dict(enumerate(model(torch.tensor([token_ids]))[0, -1].softmax(-1).tolist()))
        return known[text]

    return draft


def always(**weights):
    """A draft that proposes the same whatever the text, `t3=0.5` the token 3 with the weight 0.5."""
    return lambda token_ids: {int(name[1:]): weight for name, weight in weights.items()}


def counted(vocab_size=V, order=3):
    return Counted(NGramModel(np.random.default_rng(0).integers(vocab_size, size=400), vocab_size, order))


DRAFTS = {
    "own text": own_text,
    "counted": counted(),
    "both": [own_text, counted()],
    "one token": always(t2=1.0),
    "nothing": lambda token_ids: {},
}

# --- the same text, greedily -------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("preset", PRESETS)
def test_greedy_text_is_that_of_generate_beyond_a_full_context_too(preset, quick):
    model = make(preset)
    with fast.disabled() if not quick else torch.no_grad():
        for (name, draft), length, n_draft in itertools.product(DRAFTS.items(), (1, 12, 30), (2, 20)):
            prompt = torch.arange(length) * 3 % V
            expected = generate(model, prompt, 40, temperature=0)
            written = generate_speculative(model, prompt, 40, draft, n_draft, temperature=0)
            assert torch.equal(written.token_ids, expected), name
            assert written.written == 40
            assert written.accepted <= written.proposed <= 40 * n_draft


def held_out(tokenizer, n: int) -> list[list[int]]:
    ids = tokenizer.encode(split_by_title(load_plays(quiet=True))[1][0].text[:60_000])
    return [ids[at : at + 32] for at in range(500, 500 + 900 * n, 900)]


@pytest.fixture(scope="module")
def course():
    """The course model, its tokenizer, and a draft counted on a part of what the model has read."""
    model, tokenizer = load_course_model()
    text = split_by_title(load_plays(quiet=True))[0][0].text
    draft = Counted(NGramModel(tokenizer.encode(text), model.config.vocab_size, 3))
    return model, tokenizer, [own_text, draft]


@torch.no_grad()
def test_greedy_text_of_trained_weights_is_that_of_generate(course):
    model, tokenizer, draft = course
    for prompt in held_out(tokenizer, 6):
        expected = generate(model, prompt, 96, temperature=0)
        written = generate_speculative(model, prompt, 96, draft, temperature=0)
        if not torch.equal(written.token_ids, expected):  # only where two logits are equal but for rounding
            at = int((written.token_ids != expected).nonzero()[0, 1])
            first, second = model(expected[:, :at])[0, -1].topk(2).values.tolist()
            assert first - second < 1e-4
        assert written.tokens_a_pass > 1.2


def test_it_ends_after_the_stop_token_as_generate_does(course):
    model, tokenizer, draft = course
    prompt = held_out(tokenizer, 1)[0]
    text = generate(model, prompt, 60, temperature=0)[0, 32:].tolist()
    for stop_id in {text[0], text[20], text[41]}:
        expected = generate(model, prompt, 60, stop_id=stop_id, temperature=0)
        written = generate_speculative(model, prompt, 60, draft, 4, stop_id=stop_id, temperature=0)
        assert torch.equal(written.token_ids, expected)
        assert written.written == expected.shape[1] - 32


@pytest.mark.parametrize("n_new", [0, 1, 2])
def test_no_token_too_many_is_written(n_new):
    written = generate_speculative(make(), [1, 2], n_new, always(t2=1.0), n_draft=5, seed=0)
    assert written.token_ids.shape == (1, 2 + n_new)
    assert written.written == n_new
    assert (written.passes == 0) == (n_new == 0) == np.isnan(written.tokens_a_pass)


# --- the same distribution, by chance ----------------------------------------------------------


def assert_drawn_from(samples: list[tuple], expected: dict[tuple, float]) -> None:
    """Chi-square; outcomes that are expected less than five times are counted together."""
    counts, n = Counter(samples), len(samples)
    assert all(expected.get(outcome, 0) > 0 for outcome in counts), "an outcome of probability 0"
    rare = [outcome for outcome, p in expected.items() if n * p < 5]
    common = [outcome for outcome in expected if outcome not in rare]
    observed = [counts[outcome] for outcome in common] + [sum(counts[outcome] for outcome in rare)]
    wanted = [n * expected[outcome] for outcome in common] + [n * sum(expected[outcome] for outcome in rare)]
    pairs = [(o, w) for o, w in zip(observed, wanted, strict=True) if w > 0]
    assert chisquare(*map(list, zip(*pairs, strict=True))).pvalue > 1e-4


@torch.no_grad()
def joint_distribution(model, prompt: list[int], n: int, **choice) -> dict[tuple, float]:
    """The probability of each way to go on for `n` tokens, by the chain rule."""
    if n == 0:
        return {(): 1.0}
    p = next_probabilities(model(torch.tensor([prompt]))[:, -1], **choice)[0].tolist()
    return {
        (token, *rest): p[token] * q
        for token in range(len(p))
        if p[token] > 0
        for rest, q in joint_distribution(model, [*prompt, token], n - 1, **choice).items()
    }


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("kind", ["counted", "mixed", "itself"])
def test_drawn_texts_have_the_exact_joint_distribution(choice, kind):
    model = make(vocab_size=4, std=0.8)
    mixed = [own_text, always(t0=1.0, t3=0.2), always(t2=1.0)]
    draft = {"counted": counted(4), "mixed": mixed, "itself": itself(model)}[kind]
    prompt, n = [1, 2, 1, 2], 3
    samples = [
        generate_speculative(model, prompt, n, draft, 2, seed=seed, **choice).token_ids[0, 4:].tolist()
        for seed in range(10_000, 10_400)
    ]
    assert_drawn_from(list(map(tuple, samples)), joint_distribution(model, prompt, n, **choice))


@pytest.mark.parametrize("n_guesses", [1, 2])
def test_the_rule_gives_the_models_distribution_whatever_the_draft(n_guesses):
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(5), size=3)
    p[1, 2] = 0  # a token that must never come
    p /= p.sum(axis=1, keepdims=True)
    samples = []
    for _ in range(20_000):
        guesses = [guess({2: 1.0, 0: 0.5, 4: 0.1}, 5, 0.7, rng) for _ in range(n_guesses)]
        kept = check_by_chance(p, guesses, rng)
        kept += [draw(row, rng) for row in p[len(kept) :]]  # rows after a wrong guess are read anew
        samples.append(tuple(kept))
    expected = {
        ids: p[0][ids[0]] * p[1][ids[1]] * p[2][ids[2]] for ids in itertools.product(range(5), repeat=3)
    }
    assert_drawn_from(samples, {ids: share for ids, share in expected.items() if share > 0})


def test_a_guess_is_kept_as_often_as_the_two_distributions_overlap():
    """Leviathan et al. 2022, theorem 3.5: the sum of min(p, q)."""
    rng = np.random.default_rng(0)
    p, q = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), np.array([0.2, 0.2, 0.6])
    guesses = [guess(dict(enumerate(q)), 3, 1.0, rng) for _ in range(5000)]
    share = np.mean([len(check_by_chance(p, [each], rng)) == 2 for each in guesses])
    assert share == pytest.approx(np.minimum(p[0], q).sum(), abs=0.03)


def test_equal_distributions_never_fail_for_rounding():
    q = np.full(3, 1 / 3)
    low = np.array([[1 / 3 - 1e-16] * 3] * 2)
    rng = type("rng", (), {"random": lambda self: 1 - 2**-53})()  # the largest that there is
    assert len(check_by_chance(low, [Guess(1, [0, 1, 2], q)], rng)) in (1, 2)


# --- drafts whose worth is known ---------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_model_itself_as_draft_is_always_accepted(temperature):
    model = make(context_length=40)
    written = generate_speculative(model, [1, 2], 30, itself(model), 4, temperature=temperature, seed=0)
    assert written.accepted_share == 1.0
    assert (written.passes, written.tokens_a_pass) == (6, 5.0)


@pytest.mark.parametrize("choice", [dict(temperature=0), dict(top_k=1)])
def test_a_draft_that_is_always_wrong_is_never_accepted(choice):
    model = make(context_length=40)
    right = generate(model, [1, 2], 30, temperature=0)[0].tolist()
    wrong = lambda token_ids: {(right[len(token_ids)] + 1) % V: 1.0}  # noqa: E731
    written = generate_speculative(model, [1, 2], 30, wrong, 1, **choice)
    assert written.token_ids[0].tolist() == right
    assert (written.accepted, written.proposed, written.passes) == (0, 29, 30)


def test_a_draft_that_proposes_nothing_leaves_one_token_a_pass():
    written = generate_speculative(make(), [1, 2], 9, lambda ids: {}, seed=0)
    assert (written.passes, written.proposed) == (9, 0)
    assert np.isnan(written.accepted_share)


def test_own_text_finds_what_followed_the_last_tokens():
    rng = np.random.default_rng(0)
    for n, _ in itertools.product((1, 2, 3), range(200)):
        text = rng.integers(3, size=rng.integers(0, 12)).tolist()
        found = [text[i + n] for i in range(len(text) - n) if n <= len(text) and text[i : i + n] == text[-n:]]
        assert own_text(text, n) == ({found[0]: 1.0} if found else {})


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("smoothing", ["witten-bell", "kneser-ney"])
def test_followers_are_those_that_a_loop_counts(order, smoothing):
    text = np.random.default_rng(0).integers(6, size=80).tolist()
    ngrams = NGramModel(text, 6, order, smoothing)
    for history in itertools.product(range(6), repeat=order - 1):
        n = order - 1
        counts = Counter(text[i + n] for i in range(len(text) - n) if tuple(text[i : i + n]) == history)
        ids, found = ngrams.followers([0, 0, *history])
        if counts:
            assert dict(zip(ids.tolist(), found.tolist(), strict=True)) == counts
            assert Counted(ngrams)([0, 0, *history]) == counts
        else:  # backs off: the tokens seen after its end
            assert len(ids)


def test_the_first_draft_with_candidates_proposes():
    drafts = [lambda ids: {1: 1.0} if ids[-1] == 0 else {}, lambda ids: {0: 1.0}]
    guesses = propose(drafts, [0], 4, 2, 1.0, np.random.default_rng(0))
    assert [each.token for each in guesses] == [1, 0, 1, 0]


def test_a_seed_repeats_a_text_and_the_long_way_writes_it_too():
    model = make()
    texts = [generate_speculative(model, [1, 2], 20, counted(), seed=3).token_ids for _ in range(2)]
    with fast.disabled():
        texts.append(generate_speculative(model, [1, 2], 20, counted(), seed=3).token_ids)
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0], texts[2])
    torch.manual_seed(0)
    a = generate_speculative(model, [1, 2], 20).token_ids
    b = generate_speculative(model, [1, 2], 20).token_ids
    torch.manual_seed(0)
    assert torch.equal(a, generate_speculative(model, [1, 2], 20).token_ids)
    assert not torch.equal(a, b)


# --- what it refuses ---------------------------------------------------------------------------


def test_what_cannot_be_speculated_is_refused():
    model, other = make(), counted(5)
    for arguments, options, message in [
        (([[1, 2], [3, 4]], 3), {}, "2 prompts"),
        (([1, 2], 3, other), {}, "draft has 5 tokens and the model 7"),
        (([1, 2], 3, [own_text, other]), {}, "draft has 5 tokens and the model 7"),
        (([1, 2], 3, always(t7=1.0)), {}, "token 7, and the model has 7"),
        (([1, 2], 3, always(t3=-1.0, t2=1.0)), {}, "weights"),
        (([1, 2], 3, always(t3=0.0)), {}, "weights"),
        (([1, 2], 3, own_text, -1), {}, "n_draft=-1"),
        (([1, 9], 3), {}, "give ids from 0 to 6"),
        (([], 3), {}, "no token"),
        (([1, 2], -1), {}, "max_new_tokens=-1"),
        (([1, 2], 3), dict(temperature=-1.0), "temperature=-1.0"),
        (([1, 2], 3), dict(top_p=2.0), "top_p=2.0"),
        (([1, 2], 3), dict(stop_id=7), "stop_id"),
    ]:
        with pytest.raises(ValueError, match=message):
            generate_speculative(model, *arguments, **options)


def test_a_model_that_cannot_go_back_is_refused():
    model = TechniqueGPT(make_config(V, context_length=12, d_model=16, n_layers=1, token_shift=True))
    with pytest.raises(ValueError, match="TechniqueGPT does not forget"):
        generate_speculative(model, [1, 2], 3)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_model_that_puts_out_nan_is_refused(temperature):
    model = make()
    nn.init.constant_(model.unembedding.weight, float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        generate_speculative(model, [1, 2], 3, temperature=temperature)


def test_dropout_is_off_and_the_mode_stays():
    model = make(dropout=0.5).train()
    expected = generate(model, [1, 2], 9, temperature=0)
    assert torch.equal(generate_speculative(model, [1, 2], 9, temperature=0).token_ids, expected)
    assert model.training
