"""Speech that is made: eSpeak NG reads any text in many voices, so every transcript is exact.

The package espeakng-loader brings the library (GPL-3) as a file; it is called by its own C interface and is
no part of the course. What it says differs a little from call to call, in breath and noise, so a set of
clips is made once and stored.
"""

import ctypes
from pathlib import Path

import numpy as np

from llmcourse.data.manifest import paths_in_package
from llmcourse.support.inputs import whole

PACKAGE = {"name": "espeakng-loader", "files": "espeakng_loader/*"}
RETRIEVE, UTF8, WORDS_PER_MINUTE, PITCH = 1, 1, 1, 3  # constants of speak_lib.h
WORD, END = 1, 0  # kinds of events: a word begins; no more events in this chunk
PHONEMES_IN_IPA = (ord(" ") << 8) | 2  # in IPA, with a space between two


class Event(ctypes.Structure):
    """What the library says of its own speech (espeak_EVENT in speak_lib.h)."""

    _fields_ = [
        *[(name, ctypes.c_int) for name in ("kind", "message", "place", "length", "milliseconds", "sample")],
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Espeak:
    """The synthesizer: `speak` returns samples, `rate` says how many are one second.

    Raises FileNotFoundError where the package is absent, and OSError where its library does not load.
    """

    def __init__(self):
        paths = {Path(name).name: path for name, path in paths_in_package(PACKAGE).items()}
        libraries = [
            path
            for name, path in paths.items()
            if "espeak-ng" in name and path.suffix in (".so", ".dll", ".dylib")
        ]
        if not libraries:
            raise FileNotFoundError(
                "espeakng-loader is not installed: `pip install --no-deps espeakng-loader==0.2.4`, "
                "or go on with the clips that the course ships"
            )
        self.library, self.folder = ctypes.CDLL(str(libraries[0])), libraries[0].parent
        self.rate = self.library.espeak_Initialize(RETRIEVE, 0, str(self.folder).encode(), 0)
        if self.rate <= 0:
            raise OSError(f"eSpeak NG finds no voices in {self.folder}: install espeakng-loader again")
        self.word_starts: dict[
            int, int
        ] = {}  # of the last text: character of a word -> sample where it begins
        self._chunks: list[np.ndarray] = []
        self._callback = Callback(self._take)  # kept, or it would be freed while the library holds it
        self.library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, n: int, events) -> int:
        if samples and n:
            self._chunks.append(np.ctypeslib.as_array(samples, (n,)).copy())
        i = 0
        while events and events[i].kind != END:
            if events[i].kind == WORD:
                self.word_starts[events[i].place - 1] = events[i].sample
            i += 1
        return 0

    @property
    def variants(self) -> list[str]:
        """Names of the speakers: a voice is a language and a speaker, as in `en-us+f3`."""
        return sorted(path.name for path in (self.folder / "espeak-ng-data" / "voices" / "!v").iterdir())

    def speak(self, text: str, voice: str = "en", words_per_minute: int = 175, pitch: int = 50) -> np.ndarray:
        """Return samples (N,) in int16. Raises ValueError for an unknown voice, and what says nothing."""
        rate, pitch = whole(words_per_minute, "words_per_minute", least=80), whole(pitch, "pitch", least=0)
        if rate > 450 or pitch > 99:
            raise ValueError(f"words_per_minute={rate}, pitch={pitch}: give 80 to 450, and 0 to 99")
        self._take_voice(voice)
        self.library.espeak_SetParameter(WORDS_PER_MINUTE, rate, 0)
        self.library.espeak_SetParameter(PITCH, pitch, 0)
        self._chunks.clear()
        self.word_starts.clear()
        data = text.encode("utf-8") + b"\0"
        self.library.espeak_Synth(data, len(data), 0, 1, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        if not self._chunks:
            raise ValueError(f"there is nothing to say in {text!r}: give a text with a word")
        return np.concatenate(self._chunks)

    def phonemes(self, text: str, voice: str = "en") -> list[str]:
        """Return the phonemes of a text in the International Phonetic Alphabet, stress (ˈ, ˌ) with its vowel."""
        self._take_voice(voice)
        to_phonemes = self.library.espeak_TextToPhonemes
        to_phonemes.restype = ctypes.c_char_p
        data, parts = ctypes.create_string_buffer(text.encode("utf-8")), []
        place = ctypes.c_void_p(ctypes.addressof(data))
        while place.value:  # each call takes one clause, and moves on
            parts.append(to_phonemes(ctypes.byref(place), UTF8, PHONEMES_IN_IPA).decode("utf-8"))
        return " ".join(parts).split()

    def _take_voice(self, voice: str) -> None:
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(
                f"eSpeak NG knows no voice {voice!r}: give a language and a speaker, such as en-us+f3"
            )
