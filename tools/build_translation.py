"""Train the translator of chapter 6a, English to French and Chinese: `python tools/build_translation.py`.

It resumes where it stopped. The model, a card and what it reached (results.json) go to
data/checkpoints/translation/. `--measure` only measures again what lies there.
"""

import argparse
import hashlib
import json
import platform
import time
from functools import partial
from pathlib import Path

import torch

from llmcourse.data.pairs import PairBatches
from llmcourse.data.parallel import split_pairs
from llmcourse.data.placeholders import mask, unmask
from llmcourse.data.sources.catalogues import LANGUAGES, load_catalogues
from llmcourse.data.translation_text import END, PAD, START, encode_pair, texts_of, train_tokenizer
from llmcourse.decode.translator import Translator, load_translator
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.baselines import Copy, NearestNeighbour, WordDictionary
from llmcourse.evaluate.translation import paired_p_value, translation_scores
from llmcourse.losses import seq2seq_loss, smoothed_next_token_loss
from llmcourse.optim import muon_and_adamw
from llmcourse.pretrained import save_model
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "data" / "checkpoints" / "translation"
CURVE = ROOT / "runs" / "translation-curve.json"
SEED, VOCABULARY, NEAR = 1234, 4000, 0.5
CONFIG = dict(context_length=128, d_model=128, n_heads=4, n_layers=2, n_encoder_layers=3, dropout=0.2)
RECIPE = dict(muon_lr=0.02, adamw_lr=3e-3, weight_decay=0.1, batch_size=96, smoothing=0.1)

CARD = """# Translator, English to French and Chinese

An encoder-decoder that was trained on the interface strings of five programs. It is made to be looked into
in chapter 6a: it knows the language of interfaces, and little else.

| | |
|---|---|
| Made by | `python tools/build_translation.py` |
| Data | {n_train:,} pairs of JupyterLab, Horizon, Sahara, Wagtail and Spyder (data/manifest.toml has versions and licences: Apache-2.0, BSD-3-Clause, MIT); near copies of a text stand on one side of the split; django-allauth is held out as a whole |
| Model | {parameters:,} parameters: 3 blocks in the encoder, 2 in the decoder, width 128, 4 heads, Llama's parts, one embedding for source, target and output |
| Tokenizer | our byte-level BPE, {vocabulary} tokens with the special ones, trained on both sides of the training pairs |
| Training | {steps} steps of 96 pairs ({epochs:.1f} epochs), Muon (matrices in the blocks, 0.02) and AdamW (the rest, 3e-3), weight decay 0.1, dropout 0.2, label smoothing 0.1, {schedule}, bfloat16 matrix products, seed {seed} |
| Time | {cpu:.0f} s of processor time, on one thread of {machine} |
| Test, greedy | {scores} |
| Baselines | {baselines} |
| Against each baseline, paired | {paired} |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | Interface strings of up to 40 words; other texts come out wrong, often fluent; it may drop or invent what no placeholder protects, so a person must read what it writes |
"""


def build(threads: int, steps: int) -> None:
    """Train tokenizer and model, or go on, and save them."""
    set_up(SEED, threads=threads)
    parts = load_parts()
    tokenizer = train_tokenizer(texts_of(parts["train"]), VOCABULARY, LANGUAGES)
    special = tokenizer.special_tokens
    encoded = [encode_pair(tokenizer, pair) for pair in parts["train"]]
    torch.manual_seed(SEED)
    model = EncoderDecoder(EncoderDecoderConfig(tokenizer.vocab_size, **CONFIG))
    rates = {name: RECIPE[name] for name in ("muon_lr", "adamw_lr", "weight_decay")}
    curve = json.loads(CURVE.read_text(encoding="utf-8")) if CURVE.exists() else []
    spent = curve[-1]["cpu"] if curve else 0.0
    for step in train(
        model,
        PairBatches(encoded, special[START], special[END], RECIPE["batch_size"], special[PAD], SEED),
        steps=steps,
        loss=partial(seq2seq_loss, loss=smoothed_next_token_loss(RECIPE["smoothing"])),
        optimizer=muon_and_adamw(model, **rates, dtype=torch.bfloat16),
        schedule=warmup_linear(steps),
        dtype=torch.bfloat16,
        checkpoint=ROOT / "runs" / "translation.pt",
        checkpoint_every=100,
        resume=True,
    ):
        if step.step % 20 == 0:
            row = dict(step=step.step, loss=round(step.loss, 4), lr=step.lr)
            curve.append(row | dict(cpu=round(spent + time.process_time(), 1), of=steps))
        if step.step % 100 == 0:
            print(curve[-1], flush=True)
            with atomic_write(CURVE) as temporary:
                temporary.write_text(json.dumps(curve), encoding="utf-8")
    save_model(FOLDER, model, tokenizer)


def load_parts() -> dict:
    """Return the parts of all pairs."""
    return split_pairs([pair for language in LANGUAGES for pair in load_catalogues(language, quiet=True)[0]])


def translations(translator: Translator, parts: dict, part: str, language: str) -> tuple[dict, list, list]:
    """Return (name of a system -> its translations, references, near) of one part in one language."""
    masked = {}
    for name in ("train", part):
        pairs = [pair for pair in parts[name] if pair.language == language]
        masked[name] = pairs, [mask(pair.source) for pair in pairs]
    train_pairs, sides = masked["train"]
    sources = [text for text, _ in sides]
    goals = [mask(pair.target, known)[0] for pair, (_, known) in zip(train_pairs, sides, strict=True)]
    memory = NearestNeighbour(sources, goals)
    systems = {
        "copy": Copy(),
        "dictionary": WordDictionary(sources, goals, language == "zh"),
        "neighbour": memory,
    }
    pairs, sides = masked[part]
    asked = [text for text, _ in sides]
    out = {
        name: [unmask(text, known) for text, (_, known) in zip(system.translate(asked), sides, strict=True)]
        for name, system in systems.items()
    }
    out["model"] = translator.translate([pair.source for pair in pairs], language)
    return out, [pair.target for pair in pairs], (memory.similarity(asked) >= NEAR).tolist()


def measure() -> dict:
    """Return what the stored model and the baselines reach on the test set and on the held-out program."""
    translator, parts = load_translator(FOLDER), load_parts()
    results: dict = dict(test={}, near={}, far={}, other={}, paired={})
    for language in LANGUAGES:
        out, references, near = translations(translator, parts, "test", language)
        whole = list(range(len(references)))
        chosen = dict(test=whole, near=[i for i in whole if near[i]], far=[i for i in whole if not near[i]])
        for name, rows in chosen.items():
            refs = [references[i] for i in rows]
            results[name][language] = dict(n=len(rows)) | {
                system: translation_scores([texts[i] for i in rows], refs, language)
                for system, texts in out.items()
            }
        for system in ("copy", "dictionary", "neighbour"):
            both = out["model"], out[system], references, language
            results["paired"][f"{language} {system}"] = {
                metric: paired_p_value(*both, metric, n_resamples=10_000) for metric in ("bleu", "chrf")
            }
        out, references, _ = translations(translator, parts, "other", language)
        results["other"][language] = dict(n=len(references)) | {
            system: translation_scores(texts, references, language) for system, texts in out.items()
        }
    results["n_train"] = len(parts["train"])
    return results


def write(results: dict) -> None:
    """Write results.json and the card."""
    curve = json.loads(CURVE.read_text(encoding="utf-8")) if CURVE.exists() else []
    old = FOLDER / "results.json"
    runs = curve or json.loads(old.read_text(encoding="utf-8"))["run"]
    results |= dict(run=runs, curve=[[96 * row["step"] for row in runs], [row["loss"] for row in runs]])
    with atomic_write(old) as temporary:
        temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
    weights, translator = (FOLDER / "model.safetensors").read_bytes(), load_translator(FOLDER)
    last = {row["of"]: row["step"] for row in runs}  # a run may be planned anew on the way
    plans = ", ".join(f"up to step {step} as one of {of}" for of, step in last.items())
    schedule = "linear decay to 0" + (f", planned anew when time allowed: {plans}" if len(last) > 1 else "")

    def line(systems, names):
        return "; ".join(
            f"{language} {name} BLEU {row[name]['bleu']:.2f}, chrF {row[name]['chrf']:.2f}"
            for language, row in systems.items() for name in names
        )  # fmt: skip

    paired = "; ".join(
        f"{name} {metric} {gain:+.2f} (p = {p:.4f})"
        for name, row in results["paired"].items() for metric, (gain, p) in row.items()
    )  # fmt: skip
    card = CARD.format(
        n_train=results["n_train"],
        parameters=translator.model.n_parameters(),
        vocabulary=translator.tokenizer.vocab_size,
        steps=runs[-1]["step"],
        epochs=96 * runs[-1]["step"] / results["n_train"],
        schedule=schedule,
        seed=SEED,
        cpu=runs[-1]["cpu"],
        machine=platform.machine(),
        scores=line(results["test"], ["model"]),
        baselines=line(results["test"], ["copy", "dictionary", "neighbour"]),
        paired=paired,
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(FOLDER / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    if not arguments.measure:
        build(arguments.threads, arguments.steps)
    write(measure())


if __name__ == "__main__":
    main()
