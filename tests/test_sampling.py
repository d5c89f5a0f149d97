"""Choosing one token against transformers, the softmax, and definitions by brute force."""

import pytest
import torch
from torch.nn.functional import one_hot
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
)

from llmcourse.sampling import (
    choose_next,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_probabilities,
    penalize_repetition,
)

V = 17


def some_logits(*shape, seed=0, spread=3.0):
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tied_logits(*shape, seed=0, dtype=torch.float32):
    """Few different values, so that most tokens have ties."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def some_ids(*shape, seed=1, vocab_size=V):
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# --- dropping tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 50, 80])
def test_keep_top_k_equals_transformers(k):
    logits = some_logits(20, 50)
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(top_k=k)(None, logits))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_keep_top_p_equals_transformers(p, spread):
    logits = some_logits(20, 50, spread=spread)
    assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(top_p=p)(None, logits))


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_keep_min_p_equals_transformers(p, spread):
    logits = some_logits(20, 50, spread=spread)
    assert torch.equal(keep_min_p(logits, p), MinPLogitsWarper(min_p=p)(None, logits))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_are_kept_and_dropped_as_in_transformers(seed, dtype):
    """Top-k and min-p keep all that tie at the edge, top-p only as many as it needs, those with larger ids."""
    logits = tied_logits(30, 40, seed=seed, dtype=dtype)
    for k in (1, 5, 12):
        assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(top_k=k)(None, logits))
    for p in (0.01, 0.1, 0.37, 0.5, 0.9, 1.0):
        assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(top_p=p)(None, logits))
        assert torch.equal(keep_min_p(logits, p), MinPLogitsWarper(min_p=p)(None, logits))


def test_of_equal_tokens_each_rule_keeps_what_it_says():
    logits = torch.zeros(1, 8)
    assert keep_top_k(logits, 2).isfinite().sum() == 8
    assert keep_min_p(logits, 1.0).isfinite().sum() == 8
    assert keep_top_p(logits, 0.5).isfinite().tolist() == [[False] * 4 + [True] * 4]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 1.0])
def test_keep_min_p_keeps_what_is_likely_enough(p):
    for logits in some_logits(20, 30):
        probabilities = logits.softmax(-1)
        assert (
            keep_min_p(logits, p).isfinite().tolist() == (probabilities >= p * probabilities.max()).tolist()
        )


def test_keep_min_p_keeps_few_where_the_model_is_sure():
    sure, unsure = torch.tensor([5.0, 1.0, 0.0, 0.0]), torch.tensor([0.3, 0.2, 0.1, 0.0])
    assert [keep_min_p(x, 0.1).isfinite().sum().item() for x in (sure, unsure)] == [1, 4]


def test_what_is_forbidden_stays_forbidden():
    logits = some_logits(20, 50).scatter(-1, some_ids(20, 9, vocab_size=50), -torch.inf)
    for kept in (
        keep_top_k(logits, 5),
        keep_top_p(logits, 0.9),
        keep_min_p(logits, 0.01),
        keep_min_p(logits, 0),
    ):
        assert (kept[logits == -torch.inf] == -torch.inf).all()
        assert kept.isfinite().any(-1).all()
        assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])  # and what stays is not changed


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
@pytest.mark.parametrize(
    "options", [{}, dict(top_k=4), dict(top_p=0.8), dict(top_k=5, top_p=0.9), dict(min_p=0.3)]
)
def test_frequencies_match_the_softmax(temperature, options):
    logits = torch.tensor([1.2, 0.1, -0.5, 0.7, 0.0, -1.0, 0.4], dtype=torch.float64)
    weights = (logits / temperature).exp()
    order = logits.argsort(descending=True)
    weights[order[options.get("top_k", 7) :]] = 0.0
    weights[weights < options.get("min_p", 0) * weights.max()] = 0.0
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


# --- a penalty on what was written -------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.2, 5.0])
@pytest.mark.parametrize("length", [1, 4, 60])
def test_penalize_repetition_equals_transformers(penalty, length):
    for logits in (some_logits(20, V), tied_logits(20, V)):
        ids = some_ids(20, length)
        expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
        assert torch.equal(penalize_repetition(ids, logits, penalty), expected)


@pytest.mark.parametrize("start", [0, 3, 10])
def test_the_prompt_may_be_left_out_as_in_transformers(start):
    ids, logits = some_ids(20, 10), some_logits(20, V)
    expected = RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=start)(ids, logits)
    assert torch.equal(penalize_repetition(ids, logits, 1.3, start=start), expected)


def test_a_penalty_makes_what_was_written_less_likely_once():
    logits, ids = some_logits(30, V), some_ids(30, 5)
    written = torch.zeros(30, V, dtype=torch.bool).scatter(-1, ids, True)
    penalized = penalize_repetition(ids, logits, 1.5)
    assert (penalized[written] < logits[written]).all()
    assert torch.equal(penalized[~written], logits[~written])
    assert torch.equal(penalize_repetition(ids.repeat(1, 3), logits, 1.5), penalized)


@pytest.mark.parametrize("penalty", [0, -1.2, float("nan"), "1.2"])
def test_a_penalty_that_means_nothing_is_named(penalty):
    with pytest.raises(ValueError, match=r"penalty is .*: give a number above 0; 1 changes nothing"):
        penalize_repetition(some_ids(2, 3), some_logits(2, V), penalty)


# --- drawing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("temperature", "k", "p", "least"), [(0.7, 9, 0.9, 0.05), (1.5, 40, 0.5, 0.2)])
def test_options_apply_in_the_order_of_transformers(temperature, k, p, least, seed):
    logits = some_logits(200, 50, seed=seed)
    theirs = LogitsProcessorList(
        [
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(k),
            TopPLogitsWarper(p),
            MinPLogitsWarper(least),
        ]
    )
    probabilities = theirs(None, logits).softmax(-1)
    expected = torch.multinomial(probabilities, 1, generator=torch.manual_seed(seed))[:, 0]
    options = dict(temperature=temperature, top_k=k, top_p=p, min_p=least)
    assert torch.equal(next_probabilities(logits, **options), probabilities)
    assert torch.equal(choose_next(logits, **options, generator=torch.manual_seed(seed)), expected)


def test_rows_are_drawn_apart():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [-torch.inf, -torch.inf, 0.0]])
    assert choose_next(logits).tolist() == [0, 2]


@pytest.mark.parametrize("temperature", [1e-40, 1e-20, 1e-7])
def test_a_temperature_near_zero_is_greedy_and_does_not_overflow(temperature):
    logits = some_logits(50, V).float() * 100
    assert torch.equal(choose_next(logits, temperature), logits.argmax(-1))
    assert torch.equal(next_probabilities(logits, temperature), one_hot(logits.argmax(-1), V).float())
