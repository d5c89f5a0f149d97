"""Waves: what is changed is said, what cannot be heard is refused."""

from io import BytesIO

import numpy as np
import pytest
import soundfile

from llmcourse.speech.waves import as_wave, read_wave, write_wave

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def file(samples=TONE, rate=16000, subtype=None, kind="WAV") -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, subtype, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("subtype", "kind", "step"),
    [
        ("PCM_U8", "WAV", 2 / 2**8),
        ("PCM_16", "WAV", 2 / 2**16),
        ("PCM_24", "WAV", 2 / 2**24),
        ("PCM_32", "WAV", 1e-7),
        ("FLOAT", "WAV", 1e-7),
        ("DOUBLE", "WAV", 1e-7),
        ("PCM_16", "FLAC", 2 / 2**16),
    ],
)
def test_every_precision_reads_the_same_sound(subtype, kind, step):
    wave = read_wave(file(subtype=subtype, kind=kind))
    assert wave.rate == 16000
    assert wave.seconds == 1.0
    assert wave.samples.dtype == np.float32
    assert np.abs(wave.samples - TONE).max() <= step
    assert (wave.conversions == ()) == (subtype in ("PCM_16", "FLOAT"))


def test_another_rate_and_stereo_are_said():
    wave = read_wave(file(np.stack([TONE, TONE * 0], axis=1), rate=48000))
    assert wave.conversions == ("2 channels mixed to one", "48000 Hz resampled to 16000 Hz")
    assert len(wave.samples) == 5334  # a third, rounded up
    spectrum = np.abs(np.fft.rfft(wave.samples))
    assert (
        abs(spectrum.argmax() * 16000 / len(wave.samples) - 3 * 440) < 4
    )  # as many waves in a third of the time


@pytest.mark.parametrize(
    ("dtype", "scale", "shift"), [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 128, 128)]
)
def test_arrays_of_whole_numbers(dtype, scale, shift):
    wave = as_wave((TONE.astype(np.float64) * scale + shift).astype(dtype), 16000)
    assert np.abs(wave.samples - TONE).max() <= 1.01 / scale + 1e-7
    assert len(wave.conversions) == 1


def test_a_wave_that_is_cut_off_says_so():
    """libsndfile 1.2.2 reads the half that is there and says nothing."""
    data = file()
    assert soundfile.info(BytesIO(data[: len(data) // 2])).frames < 8000
    wave = read_wave(data[: len(data) // 2])
    assert len(wave.samples) == soundfile.info(BytesIO(data[: len(data) // 2])).frames
    assert (
        f"cut off: its header promises {len(data)} bytes and {len(data) // 2} are there" in wave.conversions
    )


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_written_and_read_again(tmp_path, name):
    write_wave(tmp_path / name, TONE, 16000)
    assert soundfile.info(tmp_path / name).subtype == "PCM_16"
    assert np.abs(read_wave(tmp_path / name).samples - TONE).max() <= 2 / 2**16


@pytest.mark.parametrize("rate", [0, -1, float("nan"), 500, "16k"])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match=r"rate is .*1000 to 400000"):
        as_wave(TONE, rate)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(16000, np.float32), "silent.*of 16000 samples"),
        (np.zeros(0, np.float32), "silent.*of 0 samples"),
        (np.full(100, np.nan), "NaN"),
        (TONE * 4, r"reaches 2: samples lie from -1 to 1"),
        (np.zeros((2, 16000), np.float32), r"shape \(2, 16000\).*\(samples, channels\)"),
        (np.stack([TONE, -TONE], 1), "once its channels are mixed: they cancel out"),
        (np.array(["a"]), "float, int16"),
        (np.zeros((3, 3, 3)), r"shape \(3, 3, 3\)"),
    ],
)
def test_bad_samples_are_named(samples, words):
    with pytest.raises(ValueError, match=words):
        as_wave(samples, 16000)


def test_a_file_that_reaches_a_little_more_than_1_is_made_quieter_and_one_of_whole_numbers_refused():
    def file(samples):
        buffer = BytesIO()
        soundfile.write(buffer, samples, 16000, "FLOAT", format="WAV")
        return buffer.getvalue()

    wave = read_wave(file(TONE * 3))  # as MP3 and OGG come out of a loud recording
    assert wave.conversions == ("reached 1.5, divided by that",)
    np.testing.assert_allclose(wave.samples, TONE / np.abs(TONE).max(), atol=1e-6)
    with pytest.raises(ValueError, match=r"reaches 1\.64e\+04"):
        read_wave(file(TONE * 32767))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no file"):
        read_wave(tmp_path / "missing.wav")
    (tmp_path / "text.wav").write_text("no sound at all", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.wav cannot be read as a sound.*ffmpeg"):
        read_wave(tmp_path / "text.wav")


@pytest.mark.parametrize("samples", [TONE * 3, TONE[None], TONE[:0], TONE * np.nan])
def test_nothing_is_cut_off_or_half_written(tmp_path, samples):
    with pytest.raises(ValueError, match="one row from -1 to 1"):
        write_wave(tmp_path / "a.wav", samples, 16000)
    assert not list(tmp_path.iterdir())
