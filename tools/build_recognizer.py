"""Make the recognizer that the course ships: `python tools/build_recognizer.py` (resumes where it stopped).

It hears the clips of data/speech, digits and sentences together. Choices were made on the voices of
development; the voices of the test are heard once, at the end. Result, with a card, in
data/checkpoints/recognizer; every test transcript in transcripts.csv beside it.
"""

import csv
import hashlib
import platform
from pathlib import Path

from llmcourse.data.sources.spoken import vocabulary
from llmcourse.evaluate.metrics import wer
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_cosine
from llmcourse.speech.clips import ClipBatches, cannot_align
from llmcourse.speech.corpus import CONDITIONS, FEATURES, SETS, load_clips, load_noises
from llmcourse.speech.features import normalized
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig, ctc_loss
from llmcourse.speech.saved import load_recognizer, save_recognizer
from llmcourse.speech.vary import Vary
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "data" / "checkpoints" / "recognizer"
SHAPE = dict(strides=(1, 2), d_model=128, n_heads=4, n_layers=4)
STEPS, BATCH, RATE, SEED = 1800, 32, 3e-3, 1234

CARD = """# Course recognizer

It writes down digits and short sentences of {words} words, as eSpeak NG says them. It is made to be looked
into and worked on in the course; it has heard no human voice.

| | |
|---|---|
| Made by | `python tools/build_recognizer.py` |
| Data | data/speech: 2000 strings of digits and 2000 sentences in {voices} voices, made with eSpeak NG; 70 % of the clips with noise at 0 to 30 dB, drawn anew each time; bands stretched by up to 12 % |
| Model | {parameters:,} parameters: 2 convolutions (stride 1 and 2, so 25 frames a second), 4 blocks of width 128, 4 heads; {words} words and a blank |
| Training | {steps} steps of {batch} clips, AdamW, learning rate {rate:g} with warmup and cosine, weight decay 0.1, seed {seed} |
| Time | {seconds:.0f} s by the clock (other work beside it), on {threads} thread(s) of {machine} |
| Development, WER (other voices) | digits {dev_digits:.2%}, sentences {dev_phrases:.2%} |
| Test, used once, WER (other voices; sentences that training did not have) | digits {clean:.2%}; at 10 dB in white noise {white:.2%}, pink {pink:.2%}, babble {babble:.2%}; sentences {test_phrases:.2%} |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | Synthetic voices only; {words} words of English; any other word, and any other sound, is written as one of them, or not at all |
"""


def batches(model: Recognizer) -> tuple[ClipBatches, int]:
    """Return the batches of training and how many voices there are."""
    clips = [clip for name in SETS[:2] for clip in load_clips(name)]
    labels = [model.labels_of(clip.text) for clip in clips]
    assert not cannot_align([clip.features for clip in clips], labels, model.n_frames)
    change = Vary(load_noises(), FEATURES)
    made = ClipBatches([clip.features for clip in clips], labels, BATCH, SEED, change, model.n_frames)
    return made, len({clip.voice for clip in clips})


def transcripts(model: Recognizer, name: str, condition: str = "clean") -> list[tuple[str, str, str]]:
    """Return (voice, what was said, what was written) of each clip."""
    clips = load_clips(name, condition)
    written = model.transcribe([normalized(clip.features) for clip in clips])
    return [(clip.voice, clip.text, text) for clip, text in zip(clips, written, strict=True)]


def error(rows: list[tuple[str, str, str]]) -> float:
    """Return the word error rate of transcripts."""
    return wer([row[2] for row in rows], [row[1] for row in rows])


def build() -> None:
    """Train, save, measure, and write the card."""
    runtime = set_up(SEED, threads=1)
    model = Recognizer(RecognizerConfig(vocabulary(), **SHAPE))
    source, voices = batches(model)
    for step in train(
        model,
        source,
        steps=STEPS,
        loss=ctc_loss,
        lr=RATE,
        schedule=warmup_cosine(STEPS, STEPS // 10),
        checkpoint=ROOT / "runs" / "recognizer.pt",
        checkpoint_every=200,
        resume=True,
    ):
        if step.step % 100 == 0:
            print(f"{step.step:6} {step.loss:.4f} {step.seconds:.0f} s", flush=True)
    save_recognizer(FOLDER, model, FEATURES)
    measure(step.seconds, voices, runtime.threads)


def measure(seconds: float, voices: int, threads: int) -> None:
    """Write transcripts.csv and the card, from what was saved: as readers get it, rounded to float16."""
    model, _ = load_recognizer(FOLDER)
    dev = {name: error(transcripts(model, name)) for name in ("dev_digits", "dev_phrases")}
    test = {kind: transcripts(model, "test_digits", kind) for kind in CONDITIONS}
    test["test_phrases"] = transcripts(model, "test_phrases")
    with (
        atomic_write(FOLDER / "transcripts.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("condition", "voice", "said", "written"))
        writer.writerows((kind, *row) for kind, rows in test.items() for row in rows)
    weights = (FOLDER / "model.safetensors").read_bytes()
    card = CARD.format(
        words=len(model.config.labels),
        voices=voices,
        parameters=sum(p.numel() for p in model.parameters()),
        steps=STEPS,
        batch=BATCH,
        rate=RATE,
        seed=SEED,
        seconds=seconds,
        threads=threads,
        machine=platform.machine(),
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        **dev,
        **{kind: error(rows) for kind, rows in test.items()},
    )
    with atomic_write(FOLDER / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    build()
