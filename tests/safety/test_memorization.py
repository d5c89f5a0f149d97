"""Exposure by its definition, exact and by sampling; losses of a space against a library's; secrets written out."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from llmcourse.model import GPT, ModelConfig
from llmcourse.safety.memorization import (
    Canary,
    canary_exposures,
    candidate_losses,
    chance_exposure,
    digit_ids,
    exposure,
    extract,
    make_canaries,
    plant,
    rank_of,
    sampled_exposure,
    space_losses,
)
from llmcourse.tokenizer import BPETokenizer
from llmcourse.training import train

TOKENIZER = BPETokenizer.from_merges([])


def gpt(seed=0, **options):
    torch.manual_seed(seed)
    sizes = dict(context_length=48, d_model=16, n_heads=2, n_layers=1)
    return GPT(ModelConfig(TOKENIZER.vocab_size, **(sizes | options))).eval()


def test_exposure_is_the_entropy_that_ranking_takes_away():
    """Definition 4 in its first form: the bits of a guess without the model, less those with it."""
    for n in (10, 1000):
        for rank in range(1, n + 1):
            without = math.log2(n)
            assert exposure(rank, n) == pytest.approx(without - math.log2(rank))
    assert exposure(1, 10_000) == pytest.approx(13.288, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 10_000])
def test_chance_exposure_is_the_mean_over_all_ranks(n):
    assert chance_exposure(n) == pytest.approx(np.mean([exposure(rank, n) for rank in range(1, n + 1)]))


def test_ranks_with_ties_are_those_of_scipy():
    losses = np.random.default_rng(0).integers(5, size=40) / 7
    expected = stats.rankdata(losses, method="average")
    assert [rank_of(losses, i) for i in range(40)] == expected.tolist()


def test_a_model_that_cannot_tell_candidates_apart_exposes_nothing():
    """All losses equal: sorting would put the first candidate on rank 1, and call it known by heart."""
    assert exposure(rank_of(np.full(1000, 3.5), 0), 1000) == pytest.approx(1.0, abs=0.01)


SLOTS = [[65, 66, 67], [70], [80, 81]]


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_losses_of_a_space_are_those_of_its_candidates_one_by_one(batch_size):
    model, prefix = gpt(), [1, 2, 3]
    candidates = list(itertools.product(*SLOTS))
    expected = []
    for candidate in candidates:
        ids = torch.tensor([[*prefix, *candidate]])
        losses = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none")
        expected.append(losses[len(prefix) - 1 :].sum().item())
    found = space_losses(model, prefix, SLOTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(candidate_losses(model, prefix, candidates, batch_size), expected, rtol=1e-5)


def test_probabilities_of_a_whole_space_add_up_to_one():
    """Every token in every place: nothing is left out, nothing counted twice."""
    model = gpt(d_model=8)
    losses = space_losses(model, [5], [list(range(TOKENIZER.vocab_size))] * 2)
    assert np.exp(-losses).sum() == pytest.approx(1.0, rel=1e-5)


def test_dropout_is_off_and_the_mode_comes_back():
    model = gpt(dropout=0.5).train()
    first = space_losses(model, [1], SLOTS)
    assert model.training
    np.testing.assert_array_equal(first, space_losses(model, [1], SLOTS))


@pytest.mark.parametrize("shape", [0.0, 4.0, -4.0])
def test_sampled_exposure_is_near_that_of_the_whole_distribution(shape):
    """Carlini et al. fit to a sample; here the distribution is known, so that the answer is as well."""
    space = stats.skewnorm(shape, loc=30, scale=4)
    sample = space.rvs(5000, random_state=np.random.default_rng(0))
    for share in (0.5, 0.1, 1e-3):
        wanted = -math.log2(share)
        assert sampled_exposure(space.ppf(share), sample) == pytest.approx(wanted, abs=0.1 + 0.05 * wanted)


def test_canaries_are_unlike_and_drawn_evenly():
    canaries = make_canaries([1] * 500, seed=3)
    assert len({canary.prefix for canary in canaries}) == 500
    counts = np.bincount([int(d) for canary in canaries for d in canary.secret], minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert make_canaries([1] * 5, seed=3) == canaries[:5] != make_canaries([1] * 5, seed=4)


def test_each_canary_is_planted_as_often_as_it_says_and_the_text_stays_in_order():
    texts, canaries = [f"text {i}" for i in range(50)], make_canaries([0, 1, 7], seed=0)
    planted = plant(texts, canaries, seed=1)
    assert [planted.count(canary.line) for canary in canaries] == [0, 1, 7]
    assert [text for text in planted if text.startswith("text")] == texts
    places = [plant(texts, canaries[:2], seed=s).index(canaries[1].line) for s in range(300)]
    assert min(places) < 5
    assert max(places) > 45


def test_a_secret_that_is_learned_is_exposed_and_written_and_another_is_not():
    known, control = Canary("The number of Kavo is ", "409", 1), Canary("The number of Pelu is ", "735", 0)
    model = gpt()
    ids = torch.tensor([TOKENIZER.encode(known.line)])
    list(train(model, [(ids[:, :-1], ids[:, 1:])], steps=60, lr=1e-2))
    exposures = canary_exposures(model, TOKENIZER, [known, control])
    assert exposures[0] == math.log2(1000)
    assert exposures[1] < 6
    assert [extract(model, TOKENIZER, known, n_beams=n) for n in (1, 3)] == ["409", "409"]


def test_the_candidate_of_rank_1_is_what_a_wide_beam_writes():
    model, canary = gpt(3), Canary("The number of Kavo is ", "12", 0)
    prefix, slots = digit_ids(TOKENIZER, canary.prefix, 2)
    model.unembedding.weight = torch.nn.Parameter(model.unembedding.weight.detach().clone())
    model.unembedding.weight.data[slots[0]] *= 40  # digits are likely: else it would write anything
    best = int(space_losses(model, prefix, slots).argmin())
    assert extract(model, TOKENIZER, canary, n_beams=100) == f"{best:02d}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exposure(0, 10), "rank is 0"),
        (lambda: exposure(11, 10), "from 1, the likeliest, to 10"),
        (lambda: rank_of([0.1, math.nan], 0), r"losses\[1\] is nan"),
        (lambda: rank_of([0.1, 0.2], 2), "index=2"),
        (lambda: space_losses(gpt(), [1], [[1], []]), "has no token"),
        (lambda: space_losses(gpt(), [], [[1]]), "a prefix of 0 tokens"),
        (lambda: space_losses(gpt(), [1] * 48, [[1], [1]]), "48 tokens and 2 more"),
        (lambda: sampled_exposure(1.0, [2.0] * 50), "give at least 30 that differ"),
        (lambda: make_canaries([-1], seed=0), r"times\[0\]=-1"),
        (lambda: digit_ids(BPETokenizer.from_merges([(48, 49)]), "is ", 4), "each digit must be one token"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_ids_that_the_model_has_not_are_refused():
    model = GPT(ModelConfig(9, context_length=8, d_model=8, n_heads=2, n_layers=1))
    for prefix, slots, words in (([5], [[-1, 2]], "-1"), ([5], [[1], [9]], "is 9"), ([9], [[1]], "prefix")):
        with pytest.raises(ValueError, match=words):
            space_losses(model, prefix, slots)


def test_a_merge_of_any_two_digits_is_found():
    class Merges:
        def encode(self, text):
            return [1000 if part == "99" else ord(part) for part in re.findall("99|.", text)]

        def tokens(self, ids):
            return ids

    with pytest.raises(ValueError, match="each digit must be one token"):
        digit_ids(Merges(), "n ", 4)
