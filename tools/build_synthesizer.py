"""Make the aligner and the synthesizer that the course ships: `python tools/build_synthesizer.py` (resumes).

The aligner is chapter 6d's recognizer again, with phonemes as labels: it says when each phoneme of the
recordings in data/voice is heard. With these durations the synthesizer learns to say them. Results, with
cards, in data/checkpoints/aligner and data/checkpoints/synthesizer.
"""

import hashlib
import platform
from pathlib import Path
from statistics import mean

import torch

from llmcourse.evaluate.metrics import wer
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_cosine
from llmcourse.speech.clips import ClipBatches, TimedBatches
from llmcourse.speech.distortion import mel_cepstral_distortion
from llmcourse.speech.durations import align_clips
from llmcourse.speech.features import normalized
from llmcourse.speech.recognizer import Recognizer, RecognizerConfig, ctc_loss
from llmcourse.speech.saved import load_recognizer, load_synthesizer, save_recognizer, save_synthesizer
from llmcourse.speech.synthesizer import Synthesizer, SynthesizerConfig, synthesis_loss
from llmcourse.speech.voice import VOICE, lateness, load_voice, phonemes_of, sounds
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "data" / "checkpoints"
ALIGNER = dict(steps=600, batch=16, rate=3e-3, seed=1234)
SPEAKER = dict(steps=1000, batch=16, rate=3e-3, seed=1234)

ALIGNER_CARD = """# Course aligner

It says at which frame each phoneme of a known text is heard, in the recordings of `data/voice`: the recognizer
of chapter 6d, with phonemes as labels and one voice to hear. It is made for this alone.

| | |
|---|---|
| Made by | `python tools/build_synthesizer.py` |
| Data | `train` of data/voice, 844 recordings; no times |
| Model | {parameters:,} parameters: a convolution that keeps every frame (80 a second), 2 blocks of width 96, 4 heads; {labels} phonemes and a blank |
| Training | CTC, {steps} steps of {batch} clips, AdamW, learning rate {rate:g} with warmup and cosine, weight decay 0.1, seed {seed} |
| Time | {seconds:.0f} s by the clock (other work beside it), on {threads} thread(s) of {machine} |
| Test, phonemes wrong (60 strings of digits and 60 sentences) | {error:.2%} |
| Word beginnings against the speaker's own clock, test | on average {late:+.0f} ms, and {off:.0f} ms in either direction |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | One synthetic voice, and the sounds of 89 words; CTC says that a sound is there, and its ends only roughly |
"""
SPEAKER_CARD = """# Course synthesizer

It says digits and short sentences in the voice of `data/voice`, as log-mel frames; `griffin_lim` makes a wave
of them. It is made to be looked into and worked on in the course.

| | |
|---|---|
| Made by | `python tools/build_synthesizer.py` |
| Data | `train` of data/voice, 844 recordings of one synthetic voice, with the durations of the course aligner |
| Model | {parameters:,} parameters: {labels} phonemes; a convolution and 2 blocks over phonemes, a convolution and 3 blocks over frames, width 128, 4 heads; 80 log-mels, 80 frames a second |
| Training | {steps} steps of {batch} clips, AdamW, learning rate {rate:g} with warmup and cosine, weight decay 0.1, seed {seed} |
| Time | {seconds:.0f} s by the clock (other work beside it), on {threads} thread(s) of {machine} |
| Development, mean error of a band with the aligner's durations | {dev:.3f} of its deviation (training {last:.3f}) |
| Test, mel-cepstral distortion of its mels against those of the recordings | sentences and digits {test:.2f} dB; sentences with words that training did not have {new:.2f} dB |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | One synthetic voice that speaks plain statements; 89 words in training. Other words can be said from phonemes, and are measured by 21 words only |
"""


def hashed(folder: Path) -> dict:
    """Return the size and the hash of the weights in a folder."""
    weights = (folder / "model.safetensors").read_bytes()
    return dict(size=len(weights), sha256=hashlib.sha256(weights).hexdigest(), machine=platform.machine())


def run(model, source, loss, name: str, steps: int, rate: float, **_):
    """Train, and return the last step."""
    for step in train(
        model,
        source,
        steps=steps,
        loss=loss,
        lr=rate,
        schedule=warmup_cosine(steps, steps // 10),
        checkpoint=ROOT / "runs" / f"{name}.pt",
        checkpoint_every=200,
        resume=True,
    ):
        if step.step % 50 == 0:
            print(f"{name} {step.step:6} {step.loss:.4f} {step.seconds:.0f} s", flush=True)
    return step


def build_aligner() -> None:
    """Train the aligner, save it, measure it."""
    threads, said = set_up(ALIGNER["seed"], threads=1).threads, load_voice("train")
    model = Recognizer(RecognizerConfig(sounds(), n_mels=VOICE.n_mels, strides=(1,), n_layers=2))
    labels = [model.labels_of(" ".join(phonemes_of(u.text))) for u in said]
    clips = [normalized(u.features) for u in said]
    source = ClipBatches(clips, labels, ALIGNER["batch"], ALIGNER["seed"])
    step = run(model, source, ctc_loss, "aligner", **ALIGNER)
    save_recognizer(CHECKPOINTS / "aligner", model, VOICE)
    model, _ = load_recognizer(CHECKPOINTS / "aligner")
    test = load_voice("test")
    texts = [phonemes_of(u.text) for u in test]
    error = wer(model.transcribe([normalized(u.features) for u in test]), [" ".join(text) for text in texts])
    durations = align_clips(model, [u.features for u in test], texts)
    apart = [ms for u, row in zip(test, durations, strict=True) for ms in lateness(u, row)]
    card = ALIGNER_CARD.format(
        parameters=sum(p.numel() for p in model.parameters()),
        labels=len(model.config.labels),
        seconds=step.seconds,
        threads=threads,
        error=error,
        late=mean(apart),
        off=mean(map(abs, apart)),
        **ALIGNER,
        **hashed(CHECKPOINTS / "aligner"),
    )
    write(CHECKPOINTS / "aligner", card)


def timed(name: str, aligner: Recognizer, model: Synthesizer) -> tuple[list, list, list]:
    """Return features, phonemes and durations of a set."""
    said = load_voice(name)
    clips, texts = [u.features for u in said], [phonemes_of(u.text) for u in said]
    return clips, [model.numbers(text) for text in texts], align_clips(aligner, clips, texts)


def build_speaker() -> None:
    """Train the synthesizer on the aligner's durations, save it, measure it."""
    threads = set_up(SPEAKER["seed"], threads=1).threads
    aligner, _ = load_recognizer(CHECKPOINTS / "aligner")
    model = Synthesizer(SynthesizerConfig(sounds()))
    parts = timed("train", aligner, model)
    model.set_scale(parts[0])
    source = TimedBatches(*parts, SPEAKER["batch"], SPEAKER["seed"])
    step = run(model, source, synthesis_loss, "synthesizer", **SPEAKER)
    save_synthesizer(CHECKPOINTS / "synthesizer", model, VOICE)
    model, _ = load_synthesizer(CHECKPOINTS / "synthesizer")
    with torch.no_grad():
        batch = next(TimedBatches(*timed("dev", aligner, model), batch_size=60))
        _, n, heard = synthesis_loss(model, batch)
    apart = {
        name: mean(
            mel_cepstral_distortion(model.say(phonemes_of(u.text))[0], u.features) for u in load_voice(name)
        )
        for name in ("test", "new_words")
    }
    card = SPEAKER_CARD.format(
        parameters=sum(p.numel() for p in model.parameters()),
        labels=len(model.config.phonemes),
        seconds=step.seconds,
        threads=threads,
        dev=heard.item() / n,
        last=step.loss,
        test=apart["test"],
        new=apart["new_words"],
        **SPEAKER,
        **hashed(CHECKPOINTS / "synthesizer"),
    )
    write(CHECKPOINTS / "synthesizer", card)


def write(folder: Path, card: str) -> None:
    """Write a card."""
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    if not (CHECKPOINTS / "aligner" / "README.md").is_file():
        build_aligner()
    build_speaker()
