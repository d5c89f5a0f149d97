"""The figures of chapter 6d show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from llmcourse.speech.features import MelConfig, log_mel, power_spectrogram
from llmcourse.teach.chapters.ch06d_speech_recognition import figures


@pytest.fixture(autouse=True)
def _closed():
    yield
    widths = [plt.figure(number).get_figwidth() for number in plt.get_fignums()]
    plt.close("all")
    assert max(widths) <= 6.8


def test_sound_has_one_axis_of_seconds():
    config, wave = MelConfig(hop=320), torch.randn(16000) / 10
    axes = figures.sound(wave.numpy(), power_spectrogram(wave, config), log_mel(wave, config), config)
    assert axes[2].get_xlabel() == "seconds"
    assert axes[1].images[0].get_extent() == [0, 1.0, 0, 8.0]
    assert axes[2].images[0].get_array().shape == (40, 51)


def test_curves_of_training_are_the_rows():
    axes = figures.despair([(10, 3.0, 1.0, 1.0), (20, 0.5, 0.8, 0.1)])
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), (3.0, 0.5))
    np.testing.assert_array_equal([line.get_ydata() for line in axes[1].lines], [(1.0, 0.8), (1.0, 0.1)])


def test_spikes_stand_in_the_middle_of_their_frames():
    log_probs = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.0, 0.9]]).log()
    axes = figures.spikes(torch.zeros(4, 40), log_probs, ("a", "b"), "b a b", seconds=0.8)
    lines = {line.get_label(): line for line in axes[1].lines}
    assert list(lines) == ["blank", "b", "a"]
    np.testing.assert_allclose(lines["b"].get_xdata(), [0.2, 0.6])
    np.testing.assert_allclose(lines["b"].get_ydata(), [0.0, 0.9], atol=1e-6)


def test_noise_marks_what_was_mixed_as_waves():
    axis = figures.noise({"white": ([0, 10], [0.3, 0.1])}, 0.05, {"white": 0.12}, 10)
    (star,) = [line for line in axis.lines if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (10, 0.12)


def test_the_worst_voice_comes_first():
    axis = figures.voices({"ed": 0.0, "max": 0.02, "ian": 0.01}, 0.01)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["max", "ian", "ed"]
    assert axis.patches[0].get_width() == 2.0


def test_remedies_are_bars_of_their_mean_with_a_dot_for_each_seed():
    axis = figures.remedies({"as it was": [0.5, 0.7], "more voices": [0.1]})
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([60, 10])
    assert [list(line.get_xdata()) for line in axis.lines] == [pytest.approx([50, 70]), pytest.approx([10])]
    assert [list(line.get_ydata()) for line in axis.lines] == [[0, 0], [1]]
    assert [text.get_text() for text in axis.texts if text.get_text()] == ["60", "10"]
    assert axis.get_xlabel() == "word error rate in %"
