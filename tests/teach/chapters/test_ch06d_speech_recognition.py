"""Chapter 6d: answers that learners give, right and wrong; and what its room measures."""

from itertools import groupby, pairwise

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

from llmcourse.evaluate.metrics import wer
from llmcourse.speech.ctc import collapse
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig
from llmcourse.teach.chapters.ch06d_speech_recognition import measures

RIGHT, WRONG = {}, {}


# 06d-collapse


def collapse_by_mask(frames):
    row = torch.tensor(frames)
    new = torch.cat([torch.tensor([True]), row[1:] != row[:-1]])
    return row[new & (row != 0)]


RIGHT["06d-collapse"] = [
    collapse,
    collapse_by_mask,
    lambda frames: [label for label, _ in groupby(frames) if label],
    lambda frames: tuple(
        np.array([x for x, _ in groupby(frames)])[np.array([x for x, _ in groupby(frames)]) > 0]
    ),
]


def merged(frames):
    return [label for label, _ in groupby(frames)]


WRONG["06d-collapse"] = {
    "blanks first": ("merge first", lambda frames: merged([x for x in frames if x])),
    "blanks kept": ("drop them after merging", merged),
    "repeats kept": ("repeats are still there", lambda frames: [x for x in frames if x]),
    "once each": ("may come again", lambda frames: list(dict.fromkeys(x for x in frames if x))),
    "sorted": ("may come again", lambda frames: torch.tensor(frames).unique()[1:].tolist()),
    "last lost": (
        "lose the last one",
        lambda frames: [a for a, b in pairwise(frames) if a != b and a],
    ),
    "nothing": ("you return", lambda frames: []),
    "text": ("", lambda frames: "3 5"),
    "number": ("", lambda frames: len(collapse(frames))),
    "unchanged": ("you return", lambda frames: frames),
}


# 06d-forward


def forward_by_masks(alpha, states, p):
    zero = torch.zeros(2)
    one = torch.cat([zero[:1], alpha[:-1]])
    two = torch.cat([zero, alpha[:-2]])
    other = torch.cat([torch.tensor([True, True]), states[2:] != states[:-2]])
    return (alpha + one + two * other * (states != 0)) * p[states]


def forward_by_matrix(alpha, states, p):
    S = len(states)
    ways = torch.eye(S) + torch.diag(torch.ones(S - 1), -1)
    for s in range(3, S, 2):
        if states[s] != states[s - 2]:
            ways[s, s - 2] = 1
    return p[states] * (ways @ alpha)


def forward_in_numpy(alpha, states, p):
    a, s, p = alpha.numpy(), states.numpy(), p.numpy()
    new = a.copy()
    new[1:] += a[:-1]
    new[2:] += a[:-2] * ((s[2:] != s[:-2]) & (s[2:] != 0))
    return new * p[s]


def forward_by_library(alpha, states, p):
    from llmcourse.speech.ctc import _from_before

    may_skip = torch.zeros(len(states), dtype=torch.bool)
    may_skip[2:] = (states[2:] != states[:-2]) & (states[2:] != 0)
    return _from_before(alpha.log(), may_skip).logsumexp(0).exp() * p[states]


RIGHT["06d-forward"] = [forward_by_masks, forward_by_matrix, forward_in_numpy, forward_by_library]


def forward(stay=1, one=1, two=1, skip=lambda s, i: s[i] != 0 and s[i] != s[i - 2], emit=True, join=sum):
    def answer(alpha, states, p):
        new = []
        for i in range(len(states)):
            ways = [alpha[i] * stay] + ([alpha[i - 1] * one] if i else [])
            ways += [alpha[i - 2] * two] if i > 1 and skip(states, i) else []
            new.append(join(ways) * (p[states[i]] if emit else 1))
        return torch.stack(new)

    return answer


WRONG["06d-forward"] = {
    "skips between equal labels": ("two equal labels", forward(skip=lambda s, i: s[i] != 0)),
    "skips anything": ("you skip labels too", forward(skip=lambda s, i: True)),
    "never skips": ("nobody skips a blank", forward(two=0)),
    "never stays": ("staying in the same state", forward(stay=0)),
    "never steps": ("the state before is missing", forward(one=0)),
    "no probability": ("multiply by p", forward(emit=False)),
    "best way": ("add up all", forward(join=max)),
    "around": (
        "count from 0",
        lambda a, s, p: (a + a.roll(1) + a.roll(2) * ((s != 0) & (s != s.roll(2)))) * p[s],
    ),
    "unchanged": ("you return", lambda a, s, p: a),
    "sum": ("", lambda a, s, p: forward()(a, s, p).sum()),
    "per label": ("", lambda a, s, p: p),
}


# 06d-normalize


RIGHT["06d-normalize"] = [
    lambda x: (x - x.mean(0)) / x.std(0, unbiased=False),
    lambda x: (x.numpy() - x.numpy().mean(0)) / x.numpy().std(0),
    lambda x: torch.nn.functional.instance_norm(x.T[None], eps=1e-12)[0].T,
    lambda x: torch.stack([(b - b.mean()) / ((b - b.mean()) ** 2).mean().sqrt() for b in x.T], dim=1),
]
WRONG["06d-normalize"] = {
    "over everything": ("those of each band", lambda x: (x - x.mean()) / x.std(correction=0)),
    "over bands": (
        "takes off what is said",
        lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0),
    ),
    "layer norm": (
        "takes off what is said",
        lambda x: torch.nn.functional.layer_norm(x, x.shape[1:], eps=0.0),
    ),
    "T - 1": ("correction=0", lambda x: (x - x.mean(0)) / x.std(0)),
    "mean only": ("divide by it", lambda x: x - x.mean(0)),
    "deviation only": ("subtract it first", lambda x: x / x.std(0, correction=0)),
    "variance": ("by its root", lambda x: (x - x.mean(0)) / x.var(0, correction=0)),
    "between 0 and 1": ("between 0 and 1", lambda x: (x - x.amin(0)) / (x.amax(0) - x.amin(0))),
    "unchanged": ("you return", lambda x: x),
    "transposed": ("", lambda x: ((x - x.mean(0)) / x.std(0, correction=0)).T),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    assert_wrong(name, WRONG[name])


# what the room measures


def test_errors_per_word_have_the_word_error_rate_as_their_mean():
    written = ["one two three", "four", "", "seven seven eight"]
    said = ["one three", "four five six", "nine", "seven eight"]
    errors, voices = measures.per_word(written, said, ["a", "b", "a", "c"])
    assert np.mean(errors) == pytest.approx(wer(written, said))
    assert voices == ["a", "a", "b", "b", "b", "a", "c", "c"]


def test_a_recognizer_that_writes_blanks_has_every_word_wrong():
    model = Recognizer(RecognizerConfig(("yes", "no"), d_model=16, n_layers=1))
    with torch.no_grad():
        model.unembedding.weight.zero_()
        model.unembedding.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert measures.state(model, [torch.zeros(20, 40)] * 2, ["yes", "no yes"]) == (1.0, 1.0)


def test_the_nearest_template_of_a_clip_is_itself():
    clips = [torch.randn(5 + i, 3, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    assert measures.nearest_texts(clips, clips, list("abcd")) == list("abcd")
