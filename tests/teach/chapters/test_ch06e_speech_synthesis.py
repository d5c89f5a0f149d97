"""Chapter 6e: answers that learners give, right and wrong; and what its room measures."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from answers import assert_right, assert_wrong

from llmcourse.evaluate.metrics import wer
from llmcourse.speech.durations import durations_of
from llmcourse.speech.features import MelConfig, power_spectrogram
from llmcourse.speech.griffin_lim import griffin_lim
from llmcourse.teach.chapters.ch06e_speech_synthesis import measures

RIGHT, WRONG = {}, {}


# 06e-durations


def spikes(places):
    """(label, first frame, last frame) of each spike."""
    found = {}
    for frame, place in enumerate(places):
        if place >= 0:
            found[place] = (found.get(place, (frame, frame))[0], frame)
    return [(label, *found[label]) for label in sorted(found)]


def by_owner(places):
    """Each blank asks which spike is nearer."""
    found, counts = spikes(places), {}
    for frame in range(len(places)):
        distance = [
            (0 if a <= frame <= b else min(abs(frame - a), abs(frame - b)), label) for label, a, b in found
        ]
        owner = min(distance)[1]
        counts[owner] = counts.get(owner, 0) + 1
    return [counts[label] for label, *_ in found]


def by_gaps(places):
    found = spikes(places)
    rows = [b - a + 1 for _, a, b in found]
    for i, ((_, _, end), (_, begin, _)) in enumerate(pairwise(found)):
        gap = begin - end - 1
        rows[i] += math.ceil(gap / 2)
        rows[i + 1] += gap // 2
    rows[0] += found[0][1]
    rows[-1] += len(places) - 1 - found[-1][2]
    return rows


def cuts(where):
    def answer(places):
        found = spikes(places)
        borders = [0, *(where(a[2], b[1]) for a, b in pairwise(found)), len(places)]
        return [b - a for a, b in pairwise(borders)]

    return answer


RIGHT["06e-durations"] = [
    durations_of,
    by_owner,
    by_gaps,
    cuts(lambda last, first: math.ceil((last + 1 + first) / 2)),
    lambda places: np.diff(np.array([0, *np.cumsum(by_gaps(places))])),
]
WRONG["06e-durations"] = {
    "spikes only": ("spikes alone", lambda places: [places.count(i) for i in range(max(places) + 1)]),
    "from spike to spike": ("from spike to spike", cuts(lambda last, first: first)),
    "all to the next": ("label after them", cuts(lambda last, first: last + 1)),
    "smaller half": ("larger half", cuts(lambda last, first: (last + 1 + first) // 2)),
    "ends lost": (
        "before the first spike",
        lambda places: by_gaps(
            [
                p
                for i, p in enumerate(places)
                if any(q >= 0 for q in places[: i + 1]) and any(q >= 0 for q in places[i:])
            ]
        ),
    ),
    "equal": ("", lambda places: [len(places) / (max(places) + 1)] * (max(places) + 1)),
    "one number": ("", lambda places: len(places)),
    "unchanged": ("you return", lambda places: places),
}


# 06e-expand

RIGHT["06e-expand"] = [
    lambda s, d: torch.repeat_interleave(s, d, dim=0),
    lambda s, d: torch.stack([row for row, n in zip(s, d, strict=True) for _ in range(int(n))]),
    lambda s, d: np.repeat(s.numpy(), d.numpy(), axis=0),
    lambda s, d: torch.cat([row.expand(int(n), -1) for row, n in zip(s, d, strict=True)]),
    lambda s, d: s[torch.arange(len(s)).repeat_interleave(d)],
]
WRONG["06e-expand"] = {
    "the row again": ("then comes the next", lambda s, d: s.repeat(int(d.max()), 1)),
    "equally long": ("all last equally long", lambda s, d: s.repeat_interleave(int(d[0]), dim=0)),
    "louder": ("not louder", lambda s, d: s * d[:, None]),
    "columns": ("time is dimension 0", lambda s, d: s.repeat_interleave(int(d[0]), dim=1)),
    "backwards": ("order", lambda s, d: s.repeat_interleave(d, dim=0).flip(0)),
    "unchanged": ("shape", lambda s, d: s),
    "durations": ("", lambda s, d: d),
}


# 06e-phases


def by_polar(s, re, im):
    z = torch.polar(s, torch.complex(re, im).angle())
    return torch.stack([z.real, z.imag])


RIGHT["06e-phases"] = [
    by_polar,
    lambda s, re, im: torch.stack([re, im]) / (re**2 + im**2).sqrt() * s,
    lambda s, re, im: torch.view_as_real(torch.sgn(torch.complex(re, im)) * s).movedim(-1, 0),
    lambda s, re, im: np.stack([f(np.arctan2(im.numpy(), re.numpy())) * s.numpy() for f in (np.cos, np.sin)]),
]
WRONG["06e-phases"] = {
    "unchanged": ("put the wanted ones back", lambda s, re, im: torch.stack([re, im])),
    "times": ("without dividing", lambda s, re, im: torch.stack([re, im]) * s),
    "no phases": ("phases are lost", lambda s, re, im: torch.stack([s, torch.zeros_like(s)])),
    "exchanged": ("exchanged", lambda s, re, im: by_polar(s, im, re)),
    "power": ("take its root", lambda s, re, im: torch.stack([re, im]) * s / (re**2 + im**2)),
    "arctan": (
        "atan2",
        lambda s, re, im: torch.stack([s * (im / re).atan().cos(), s * (im / re).atan().sin()]),
    ),
    "conjugate": ("wrong sign", lambda s, re, im: by_polar(s, re, -im)),
    "one norm": (
        "each number has its own",
        lambda s, re, im: torch.stack([re, im]) * s / torch.stack([re, im]).norm(),
    ),
    "complex": ("not complex", lambda s, re, im: torch.polar(s, torch.complex(re, im).angle())),
    "last dimension": (
        "shape",
        lambda s, re, im: torch.view_as_real(torch.polar(s, torch.complex(re, im).angle())),
    ),
}


# 06e-distortion

DB = 10 / math.log(10)

RIGHT["06e-distortion"] = [
    lambda a, b: (DB * torch.sqrt(2 * ((a - b) ** 2).sum(1))).mean(),
    lambda a, b: DB * math.sqrt(2) * (a - b).norm(dim=1).mean().item(),
    lambda a, b: np.mean(DB * np.sqrt(2 * np.sum((a.numpy() - b.numpy()) ** 2, axis=1))),
    lambda a, b: (
        sum(
            DB * math.sqrt(2 * sum((x - y) ** 2 for x, y in zip(p, q, strict=True)))
            for p, q in zip(a.tolist(), b.tolist(), strict=True)
        )
        / len(a)
    ),
]
WRONG["06e-distortion"] = {
    "mean before root": (
        "the mean comes last",
        lambda a, b: DB * math.sqrt(2 * ((a - b) ** 2).sum(1).mean()),
    ),
    "no 2": ("2 under the root is missing", lambda a, b: DB * (a - b).norm(dim=1).mean()),
    "2 outside": ("stands under the root", lambda a, b: 2 * DB * (a - b).norm(dim=1).mean()),
    "nepers": ("decibels of nepers", lambda a, b: math.sqrt(2) * (a - b).norm(dim=1).mean()),
    "log10": ("natural one", lambda a, b: 10 / math.log10(10) * math.sqrt(2) * (a - b).norm(dim=1).mean()),
    "sum": ("take their mean", lambda a, b: DB * math.sqrt(2) * (a - b).norm(dim=1).sum()),
    "no root": ("root is missing", lambda a, b: DB * 2 * ((a - b) ** 2).sum(1).mean()),
    "mean of squares": ("added up", lambda a, b: DB * (2 * ((a - b) ** 2).mean(1)).sqrt().mean()),
    "rows": ("", lambda a, b: DB * math.sqrt(2) * (a - b).norm(dim=1)),
    "zero": ("you return", lambda a, b: 0.0),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    assert_wrong(name, WRONG[name])


# what the room measures


def test_word_errors_are_the_rate_and_an_interval_around_it():
    said = ["one two three", "four five", "six"] * 10
    written = ["one two", "four five", "seven", *said[3:]]
    rate, low, high = measures.word_errors(written, said)
    assert rate == pytest.approx(wer(written, said)) == pytest.approx(2 / 60)
    assert low <= rate <= high
    assert low < high


def test_differences_are_those_of_the_rates_and_pairing_makes_them_surer():
    said = ["one two three", "four five", "six"] * 10
    written = ["one two", "four nine", "six"] * 10
    worse = ["one two", "four nine", "seven"] * 10
    difference, low, high = measures.more_errors(worse, written, said)
    assert difference == pytest.approx(wer(worse, said) - wer(written, said)) == pytest.approx(1 / 6)
    assert 0 < low < difference < high  # never better, so the interval holds no 0
    assert measures.more_errors(written, worse, said)[0] == pytest.approx(-1 / 6)


def test_apart_is_0_for_the_wave_s_own_spectrogram():
    config = MelConfig()
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.1
    strengths = power_spectrogram(wave, config).sqrt()
    assert measures.apart(wave, strengths, config) == pytest.approx(0, abs=1e-6)
    rounds, values = measures.by_rounds(strengths, config, (0, 4, 16), 0.0)
    assert rounds == [0, 4, 16]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(
        measures.apart(griffin_lim(strengths, config, 4, 0.0), strengths, config)
    )


def test_a_smoothed_mel_is_less_sharp():
    mel = torch.randn(20, 80, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool1d(mel, 3, stride=1)
    assert measures.sharpness([smooth]) < measures.sharpness([mel])
    assert measures.sharpness([mel + 5]) == pytest.approx(measures.sharpness([mel]), rel=1e-5)
