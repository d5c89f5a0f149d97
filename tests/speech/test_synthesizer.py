"""A synthesizer: padding changes nothing, the length is the sum of durations, bad input is named."""

import pytest
import torch

from llmcourse.losses import checked
from llmcourse.speech.synthesizer import Synthesizer, SynthesizerConfig, expand, synthesis_loss
from llmcourse.training import train

SMALL = SynthesizerConfig(("a", "b", "c"), n_mels=6, d_model=16, n_heads=2, n_text_layers=1, n_frame_layers=1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Synthesizer(SMALL)


def test_expand_is_a_loop():
    g = torch.Generator().manual_seed(0)
    states = torch.randn(3, 4, 5, generator=g)
    durations = torch.randint(0, 4, (3, 4), generator=g)
    frames, places = expand(states, durations)
    for b in range(3):
        rows, where = [], []
        for n in range(4):
            d = int(durations[b, n])
            rows += [states[b, n]] * d
            where += [
                [(j + 0.5) / d, abs(2 * (j + 0.5) / d - 1), torch.tensor(float(d)).log()] for j in range(d)
            ]
        torch.testing.assert_close(frames[b, : len(rows)], torch.stack(rows))
        torch.testing.assert_close(places[b, : len(rows)], torch.tensor(where))
        assert not frames[b, len(rows) :].any()


def test_padding_changes_nothing(model):
    model.eval()
    short = model(torch.tensor([[1, 2]]), torch.tensor([[3, 4]]))
    both = model(torch.tensor([[1, 2, 0, 0], [3, 1, 2, 2]]), torch.tensor([[3, 4, 0, 0], [5, 1, 2, 9]]))
    torch.testing.assert_close(both[0][0, :7], short[0][0])
    torch.testing.assert_close(both[1][0, :2], short[1][0])


def test_what_comes_later_changes_what_is_said_before(model):
    """It looks both ways: a phoneme is said otherwise before another one."""
    mel, _ = model.say(["a", "b"], [3, 3])
    other, _ = model.say(["a", "c"], [3, 3])
    assert not torch.allclose(mel[:3], other[:3])


def test_say_is_forward_with_predicted_durations(model):
    mel, durations = model.say(["a", "c", "b"])
    again, _ = model.say(["a", "c", "b"], durations)
    torch.testing.assert_close(again, mel)
    assert len(mel) == int(durations.sum())
    with torch.no_grad():
        from_forward, _ = model.eval()(torch.tensor([[1, 3, 2]]))
    torch.testing.assert_close(from_forward[0], mel)


def test_pace_divides_durations(model):
    with torch.no_grad():
        model.duration.weight.zero_()
        model.duration.bias.fill_(torch.tensor(8.0).log())
    assert model.say(["a", "b"])[1].tolist() == [8, 8]
    assert model.say(["a", "b"], pace=2)[1].tolist() == [4, 4]
    assert model.say(["a", "b"], pace=0.5)[1].tolist() == [16, 16]


def test_scale_is_that_of_the_clips(model):
    clips = [torch.randn(9, 6) * 3 - 7, torch.randn(5, 6) - 7]
    model.set_scale(clips)
    torch.testing.assert_close(model.mean, torch.cat(clips).mean(0))
    with torch.no_grad():
        model.mel.weight.zero_(), model.mel.bias.zero_()
    torch.testing.assert_close(model.say(["a"], [2])[0], model.mean.expand(2, -1))


def test_loss_by_hand(model):
    model.set_scale([torch.randn(20, 6, generator=torch.Generator().manual_seed(1)) * 2])
    numbers, durations = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[3, 2], [4, 0]])
    wanted, lengths = torch.randn(2, 5, 6), torch.tensor([5, 4])
    total, n, heard = synthesis_loss(model, (numbers, durations, wanted, lengths))
    mel, log_durations = model(numbers, durations)
    by_hand = sum(
        ((mel[b, t] - wanted[b, t]) / model.deviation).abs().mean()
        for b, T in ((0, 5), (1, 4))
        for t in range(T)
    )
    said = torch.stack([log_durations[0, 0], log_durations[0, 1], log_durations[1, 0]])
    squares = (said - torch.tensor([3.0, 2.0, 4.0]).log()).square()
    assert n == 9
    torch.testing.assert_close(heard, by_hand)
    torch.testing.assert_close(total, by_hand + 9 * squares.mean())
    checked(synthesis_loss(model, (numbers, durations, wanted, lengths)))


def test_it_learns_one_sentence(model):
    wanted = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(0))
    batch = torch.tensor([[1, 2]]), torch.tensor([[3, 4]]), wanted, torch.tensor([7])
    losses = [s.loss for s in train(model, [batch], steps=150, loss=synthesis_loss, lr=1e-2)]
    assert losses[-1] < 0.2 * losses[0]
    assert model.say(["a", "b"])[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "nothing to say"),
        ((["a", "x"],), "no phoneme 'x'; it knows a b c"),
        ((["a"], [3, 4]), "give 1 whole numbers of frames"),
        ((["a"], [0]), "each at least 1"),
        ((["a"], [1.5]), "whole numbers"),
        ((["a"], [2000]), "2000 frames, and the synthesizer says 1000 at once"),
        ((["a"], None, 0), "pace is 0"),
        ((["a"], None, float("nan")), "pace is nan"),
    ],
)
def test_bad_input_is_named(model, arguments, said):
    with pytest.raises(ValueError, match=said):
        model.say(*arguments)


@pytest.mark.parametrize(
    "bad",
    [dict(phonemes=()), dict(phonemes=("a", "a")), dict(phonemes=("",)), dict(n_mels=0), dict(longest=0.5)],
)
def test_bad_shapes_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        SynthesizerConfig(**{"phonemes": ("a",), **bad})
