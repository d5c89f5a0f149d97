"""The recognizer: padding changes nothing, its loss is CTC's, and it learns what is there."""

import itertools

import pytest
import torch

from llmcourse.speech.clips import ClipBatches, cannot_align
from llmcourse.speech.ctc import log_likelihood
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig, ctc_loss, listen, pad_clips, with_labels
from llmcourse.training import train

WORDS = ("up", "down", "left")


def make(seed=0, **changes) -> Recognizer:
    torch.manual_seed(seed)
    return Recognizer(
        RecognizerConfig(WORDS, **{"n_mels": 8, "d_model": 24, "n_layers": 2, "n_heads": 2, **changes})
    )


def clip(n, seed=0, width=8):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2), (3,), (2, 1, 2)])
def test_padding_and_company_change_nothing(strides):
    model = make(strides=strides)
    clips = [clip(n, n) for n in (40, 7, 25, 1, 26, 9)]
    alone = [model(c[None], torch.tensor([len(c)])) for c in clips]
    features, lengths = pad_clips(clips)
    features = features.masked_fill(
        ~(torch.arange(40) < lengths[:, None])[..., None], 99.0
    )  # anything may lie there
    logits, left = model(features, lengths)
    for i, (one, length) in enumerate(alone):
        assert left[i] == length[0] == model.n_frames(len(clips[i]))
        assert torch.allclose(logits[i, : left[i]], one[0], atol=1e-5)
    for log_probs, (one, _) in zip(model.log_probabilities(clips, batch_size=4), alone, strict=True):
        assert torch.allclose(log_probs, one[0].log_softmax(-1), atol=1e-5)


def test_loss_is_minus_the_likelihood_of_each_text():
    model = make()
    clips, labels = [clip(40, 1), clip(30, 2), clip(36, 3)], [[1, 1, 2], [3], [2, 3, 2, 1]]
    batch = next(ClipBatches(clips, labels, batch_size=3, n_frames=model.n_frames))
    total, count = ctc_loss(model, batch)
    each = [-log_likelihood(p, row) for p, row in zip(model.log_probabilities(clips), labels, strict=True)]
    assert count == 8
    assert torch.allclose(total, torch.stack(each).sum(), rtol=1e-4)


def test_it_learns_tones():
    """Each word is a band that sounds for ten frames; between words there is silence."""
    generator = torch.Generator().manual_seed(0)
    clips, labels = [], []
    for _ in range(64):
        row = torch.randint(
            1, 4, (int(torch.randint(1, 5, (1,), generator=generator)),), generator=generator
        ).tolist()
        sound = torch.zeros(len(row) * 14 + 4, 8)
        for i, word in enumerate(row):
            sound[i * 14 + 4 : i * 14 + 14, 2 * word] = 3.0
        clips.append(sound + 0.3 * torch.randn(sound.shape, generator=generator))
        labels.append(row)
    model = make()
    batches = ClipBatches(clips[:48], labels[:48], batch_size=16, n_frames=model.n_frames)
    losses = [step.loss for step in train(model, batches, steps=80, loss=ctc_loss, lr=1e-2)]
    assert losses[-1] < 0.05 * losses[0]
    assert model.transcribe(clips[48:]) == [model.text(row) for row in labels[48:]]


def test_batches_depend_on_their_number_alone():
    def noisy(clip, generator):
        return clip + torch.randn(clip.shape, generator=generator)

    clips, labels = [clip(10 + i % 5, i) for i in range(20)], [[1 + i % 3] for i in range(20)]
    build = lambda: ClipBatches(clips, labels, batch_size=6, seed=3, change=noisy)  # noqa: E731
    straight = list(itertools.islice(build(), 9))
    jumped = build()
    jumped.load_state_dict({**build().state_dict(), "position": 5})
    for one, other in zip(straight[5:], itertools.islice(jumped, 4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    per_epoch = torch.cat([batch[1] for batch in straight[:4]])
    assert sorted(per_epoch.tolist()) == sorted(len(c) for c in clips)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RecognizerConfig(("a", "a")), "each once"),
        (lambda: RecognizerConfig(()), "at least one"),
        (lambda: RecognizerConfig(WORDS, strides=(2, 0)), "strides=0"),
        (lambda: make()(torch.zeros(1, 9, 40), torch.tensor([9])), r"\(1, 9, 40\).*frames, 8"),
        (lambda: make()(torch.zeros(1, 9, 8), torch.tensor([10])), r"lengths \[10\].*from 1 to 9"),
        (lambda: make()(torch.zeros(1, 9, 8), torch.tensor([0])), "from 1 to 9"),
        (lambda: make(longest=2)(torch.zeros(1, 9, 8), torch.tensor([9])), "9 frames.*hears 8.*cut it"),
        (lambda: ClipBatches([clip(9)], [[]]), "not empty"),
        (lambda: ClipBatches([clip(9)], [[1], [2]]), "1 clips and 2 texts"),
        (
            lambda: ClipBatches([clip(9), clip(3)], [[1], [1, 1]], n_frames=make().n_frames),
            "clip 1 with 1 frames for 3",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_clips_that_cannot_be_aligned_are_counted():
    clips, labels = [clip(n) for n in (40, 8, 12, 8)], [[1, 2], [1, 2], [1, 1], [1, 1]]
    assert cannot_align(clips, labels, make().n_frames) == [3]


def test_other_labels_keep_the_logits_of_those_that_both_have():
    model = make()
    grown = with_labels(model, ("left", "stop", "up", "go"))
    features = clip(30)[None], torch.tensor([30])
    old, new = model(*features)[0], grown(*features)[0]
    assert new.shape[-1] == 5
    torch.testing.assert_close(new[..., [0, 1, 3]], old[..., [0, 3, 1]])  # blank, left, up
    grown.unembedding.weight.data.zero_()
    torch.testing.assert_close(model(*features)[0], old)  # a copy


def test_listening_takes_the_bands_that_the_model_knows():
    model, features = make(), [clip(n, n, width=12) * 3 - 7 for n in (40, 9)]
    wanted = model.transcribe(
        [(c - c.mean(0)) / c.std(0, correction=0) for c in (f[:, :8] for f in features)]
    )
    assert listen(model, features) == wanted
    assert any(wanted)
