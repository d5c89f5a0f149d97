"""Recordings of people: which words are which files, and strings joined of them. Their sound is not needed."""

import numpy as np
import pytest
import soundfile

from llmcourse.data.manifest import DataSet
from llmcourse.data.sources.spoken import DIGITS, vocabulary
from llmcourse.speech import people
from llmcourse.speech.people import RATE, Recording, join_words, load_people


def wav(rate: int, n: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    soundfile.write(buffer, np.sin(np.arange(n)).astype(np.float32) / 2, rate, "PCM_16", format="WAV")
    return buffer.getvalue()


@pytest.fixture
def packages(monkeypatch):
    """The two packages with their names and transcripts, and tones in place of voices."""
    root = "usr/share/asterisk/sounds/en_US_f_Allison"
    names = [*map(str, range(10)), "10", "20", "30", *(f"day-{i}" for i in range(7)), "at"]
    words = {f"{root}/digits/{name}.wav": wav(8000, 4000) for name in names}
    words |= {
        f"{root}/{name}.wav": wav(8000, 4000)
        for name in ("vm-and", "for", "vm-from", "hours", "is", "minutes")
    }
    book = "usr/share/pocketsphinx/test/data"
    texts = {
        f"{book}/cards/cards.transcription": b"<s> ten of clubs  </s> (001)\n<s> five five  </s> (004)\n"
    }
    texts |= {f"{book}/librivox/transcription": b"<s> he was not </s> (a_64kb-0880)\n"}
    sounds = {
        f"{book}/{name}.wav": wav(16000, 8000) for name in ("cards/001", "cards/004", "librivox/a_64kb-0880")
    }
    raw = {f"{book}/tidigits/dhd.2934z.raw": np.full(8000, 16384, "<i2").tobytes()}
    files = {"people-words": words, "people-sentences": texts | sounds | raw}
    monkeypatch.setattr(people, "fetch", lambda name, quiet: DataSet(name, "apt", "free", files[name]))


def test_names_of_files_say_the_words(packages):
    digits, words = load_people("digits"), load_people("words")
    assert sorted(r.text for r in digits) == sorted(DIGITS)
    assert len(words) == 17
    assert {r.text for r in words} <= set(vocabulary()) - set(DIGITS)
    assert {len(r.samples) for r in digits} == {8000}
    assert digits[0].conversions == ("8000 Hz resampled to 16000 Hz",)


def test_transcripts_say_the_sentences_and_strings_of_digits_are_apart(packages):
    assert [(r.text, r.speaker) for r in load_people("others")] == [
        ("five five", "cards"),
        ("two nine three four zero", "tidigits"),
    ]
    assert [r.text for r in load_people("sentences")] == ["ten of clubs", "he was not"]
    assert load_people("others")[1].samples[0] == 0.5


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="'letters': take one of digits, words, others, sentences"):
        load_people("letters")


def test_a_string_is_its_recordings_with_gaps():
    words = [Recording(str(i), "ann", np.full(100 + i, 1 + i, np.float32)) for i in range(3)]
    strings = join_words(words, 60, seed=3, most=4, gap=0.01)
    lengths = [len(s.text.split()) for s in strings]
    assert set(lengths) == {2, 3, 4}
    for s in strings:
        said = [int(word) for word in s.text.split()]
        sounding = s.samples[s.samples > 0]
        assert sounding.tolist() == np.concatenate([words[i].samples for i in said]).tolist()
        assert 0 <= len(s.samples) - len(sounding) <= (len(said) - 1) * 0.01 * RATE
    assert [s.text for s in join_words(words, 5, seed=3)] == [s.text for s in join_words(words, 5, seed=3)]
    assert [len(s.samples) for s in join_words(words[:1], 1, most=2, gap=0)] == [200]


@pytest.mark.parametrize(
    "options", [dict(words=[]), dict(least=3, most=2), dict(gap=-1), dict(n=-1), dict(least=0)]
)
def test_what_makes_no_strings_is_refused(options):
    word = Recording("one", "ann", np.ones(10, np.float32))
    with pytest.raises(ValueError, match=r"give|least|gap|n="):
        join_words(**(dict(words=[word], n=1) | options))
