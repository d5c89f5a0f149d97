"""CTC against torch's loss, and against all alignments written out."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F

from llmcourse.speech.ctc import (
    align,
    collapse,
    frames_needed,
    greedy_decode,
    log_likelihood,
    prefix_beam_search,
)


def outputs(T, K, seed=0, sharp=2.0):
    logits = sharp * torch.randn(T, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.log_softmax(-1)


def all_texts(log_probs, blank=0):
    """Every text's probability and best alignment, from all K**T alignments."""
    T, K = log_probs.shape
    total, best = defaultdict(float), {}
    for path in itertools.product(range(K), repeat=T):
        p = math.exp(sum(log_probs[t, label].item() for t, label in enumerate(path)))
        text = tuple(label for label, _ in itertools.groupby(path) if label != blank)
        total[text] += p
        best[text] = max(best.get(text, (0.0, None)), (p, path))
    return total, best


TEXTS = [[], [1], [2, 1], [1, 1], [3, 3, 3], [1, 2, 1, 2], [2, 2, 1]]


@pytest.mark.parametrize("labels", TEXTS)
@pytest.mark.parametrize("seed", range(3))
def test_likelihood_and_gradient_are_torchs(labels, seed):
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    ours = -log_likelihood(mine.log_softmax(-1), labels)
    loss = F.ctc_loss(
        theirs.log_softmax(-1)[:, None],
        torch.tensor([labels], dtype=torch.long),
        [9],
        [len(labels)],
        reduction="sum",
    )
    assert torch.allclose(ours, loss)
    ours.backward(), loss.backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_is_the_sum_over_all_alignments(seed):
    log_probs = outputs(5, 3, seed)
    total, _ = all_texts(log_probs)
    assert math.isclose(sum(total.values()), 1.0)
    for text, p in total.items():
        assert math.isclose(log_likelihood(log_probs, text).exp(), p, rel_tol=1e-9)


def test_too_few_frames_are_impossible_and_have_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    assert frames_needed([1, 1, 2]) == 4
    value = log_likelihood(logits.log_softmax(-1), [1, 1, 2])
    assert value == -torch.inf
    theirs = F.ctc_loss(logits.log_softmax(-1)[:, None], torch.tensor([[1, 1, 2]]), [3], [3], reduction="sum")
    assert theirs == torch.inf
    with pytest.raises(ValueError, match="3 labels need 4 frames and there are 3"):
        align(logits.log_softmax(-1), [1, 1, 2])


@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_best_of_all(seed):
    log_probs = outputs(6, 3, seed, sharp=1.0)
    _, best = all_texts(log_probs)
    for text, (p, _) in best.items():
        places = align(log_probs, text)
        path = [text[place] if place >= 0 else 0 for place in places]
        assert tuple(collapse(path)) == text
        assert [place for place, _ in itertools.groupby(places) if place >= 0] == list(range(len(text)))
        assert math.isclose(math.exp(sum(log_probs[t, k].item() for t, k in enumerate(path))), p)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_is_exhaustive_search(seed):
    log_probs = outputs(5, 3, seed, sharp=1.0)
    total, _ = all_texts(log_probs)
    found = prefix_beam_search(log_probs, n_beams=1000)
    assert [tuple(text) for text, _ in found] == sorted(total, key=lambda text: -total[text])
    for text, score in found:
        assert math.isclose(math.exp(score), total[tuple(text)])


@pytest.mark.parametrize("seed", range(4))
def test_passing_over_what_is_hardly_likely_finds_the_same_text(seed):
    log_probs = outputs(12, 6, seed, sharp=4.0)
    prior = lambda prefix, label: -0.2 * label  # noqa: E731
    wanted, quick = (
        prefix_beam_search(log_probs, 8, prior=prior, least=x)[0] for x in (float("-inf"), -12.0)
    )
    assert quick[0] == wanted[0]
    assert math.isclose(quick[1], wanted[1], abs_tol=1e-3)


def test_a_beam_beats_greedy_where_a_text_has_many_alignments():
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert greedy_decode(log_probs) == []
    assert prefix_beam_search(log_probs, 2)[0][0] == [1]


@pytest.mark.parametrize("seed", range(3))
def test_a_prior_counts_once_a_label(seed):
    log_probs = outputs(5, 3, seed, sharp=1.0)
    total, _ = all_texts(log_probs)
    prior = lambda prefix, label: -0.7 * label - 0.3 * len(prefix)  # noqa: E731
    earned = {text: sum(prior(text[:i], label) for i, label in enumerate(text)) for text in total}
    for text, score in prefix_beam_search(log_probs, 1000, prior=prior):
        assert math.isclose(score, math.log(total[tuple(text)]) + earned[tuple(text)], rel_tol=1e-9)


def test_another_blank():
    log_probs = outputs(6, 4)
    moved = log_probs[:, [1, 2, 3, 0]]  # the blank is now the last
    assert torch.allclose(log_likelihood(log_probs, [1, 3, 3]), log_likelihood(moved, [0, 2, 2], blank=3))
    assert [k + 1 for k in greedy_decode(moved, blank=3)] == greedy_decode(log_probs)
    assert align(log_probs, [1, 3]) == align(moved, [0, 2], blank=3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_likelihood(outputs(4, 3), [0, 1]), "holds the blank, 0"),
        (lambda: log_likelihood(outputs(4, 3), [3]), r"labels\[0\] is 3.*0 to 2"),
        (lambda: log_likelihood(outputs(4, 3)[None], [1]), r"shape \(1, 4, 3\).*one clip"),
        (lambda: prefix_beam_search(outputs(4, 3), 0), "n_beams=0"),
        (lambda: prefix_beam_search(outputs(4, 3)[None]), "one clip"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_gradient_in_log_probs_is_the_derivative_unlike_torchs():
    """torch 2.13's holds exp(log_probs) besides, which log_softmax would take off: right for logits alone."""
    log_probs = outputs(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: log_likelihood(p, [1, 2, 2]), log_probs)
    mine = torch.autograd.grad(-log_likelihood(log_probs, [1, 2, 2]), log_probs)[0]
    loss = F.ctc_loss(log_probs[:, None], torch.tensor([[1, 2, 2]]), [6], [3], reduction="sum")
    theirs = torch.autograd.grad(loss, log_probs)[0]
    assert torch.allclose(theirs - mine, log_probs.exp())
