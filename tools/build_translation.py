"""Train the translator of chapter 6a, English to French and Chinese: `python tools/build_translation.py`.

It resumes where it stopped. The model, a card and what it reached (results.json) go to
data/checkpoints/translation/. `--measure` only measures again what lies there, first on the validation
set, where the fallback's two limits are chosen.
"""

import argparse
import hashlib
import json
import platform
import random
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from llmcourse.data.manifest import fetch
from llmcourse.data.pairs import PairBatches
from llmcourse.data.parallel import split_pairs
from llmcourse.data.placeholders import mask, unmask
from llmcourse.data.sources.catalogues import LANGUAGES, PROGRAMS, load_catalogues
from llmcourse.data.translation_text import END, PAD, START, encode_pair, texts_of, train_tokenizer
from llmcourse.decode.translator import Translator, WithFallback, load_translator
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.baselines import Copy, NearestNeighbour, NeighbourOrDictionary, WordDictionary
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
BASELINES, METRICS = ("copy", "dictionary", "neighbour", "either"), ("bleu", "chrf")
THRESHOLDS, COSINES = (-0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8, -1.0), (0.5, 0.6, 0.7, 0.8, 1.1)
CONFIG = dict(context_length=128, d_model=192, n_heads=6, n_layers=2, n_encoder_layers=3, dropout=0.3)
RECIPE = dict(muon_lr=0.02, adamw_lr=3e-3, weight_decay=0.1, batch_size=96, smoothing=0.1, joined=0.3)

CARD = """# Translator, English to French and Chinese

An encoder-decoder that was trained on the interface strings of five programs. It is made to be looked into
in chapter 6a: it knows the language of interfaces, and little else.

| | |
|---|---|
| Made by | `python tools/build_translation.py` |
| Data | {n_train:,} pairs of JupyterLab, Horizon, Sahara, Wagtail and Spyder (data/manifest.toml has versions and licences: Apache-2.0, BSD-3-Clause, MIT); near copies of a text stand on one side of the split; django-allauth is held out as a whole |
| Model | {parameters:,} parameters: {n_encoder_layers} blocks in the encoder, {n_layers} in the decoder, width {d_model}, {n_heads} heads, Llama's parts, one embedding for source, target and output |
| Tokenizer | our byte-level BPE, {vocabulary} tokens with the special ones, trained on both sides of the training pairs |
| Training | {steps} steps of {batch_size} rows ({epochs:.1f} epochs); beside each 100 pairs stand {more} rows of two short pairs, joined; Muon (matrices in the blocks, {muon_lr}) and AdamW (the rest, {adamw_lr}), weight decay {weight_decay}, dropout {dropout}, label smoothing {smoothing}, {schedule}, bfloat16 matrix products, seed {seed} |
| Time | {cpu:.0f} s of processor time, on one thread of {machine} |
| Test, greedy | {scores} |
| Baselines | {baselines} |
| With a fallback | where the mean log p of its tokens is below {threshold}, the neighbour answers (cosine of at least {least}), or the dictionary; both numbers chosen on the validation set: {fallback} |
| Against each baseline, paired | {paired} |
| With the fallback, paired | {paired_fallback} |
| The same, texts with a near neighbour | {paired_near} |
| The same, texts without | {paired_far} |
| A program that was held out | {other} |
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
    encoded += joined_rows(encoded, round(RECIPE["joined"] * len(encoded)), SEED)
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


def joined_rows(rows: list, n: int, seed: int, most: int = 64) -> list:
    """Return n rows of two short ones of the same language: long texts are few, and this makes more.

    Source: Nguyen et al. 2021, arXiv:2105.01691.
    """
    rng, short, made = random.Random(seed), {}, []
    for source, target in rows:
        if len(source) <= most // 2 and len(target) <= most // 2:
            short.setdefault(source[0], []).append((source, target))  # source[0] asks for a language
    for _ in range(n):
        chosen = short[rng.choice(rows)[0][0]]
        (source, target), (more, longer) = rng.choice(chosen), rng.choice(chosen)
        made.append((source + more[1:], target + longer))
    return made


def load_parts() -> dict:
    """Return the parts of all pairs. Raises FileNotFoundError where a package is missing: no stand-in here."""
    for language in LANGUAGES:
        for names in PROGRAMS.values():
            for name in names:
                fetch(name.format(language), quiet=True)
    return split_pairs([pair for language in LANGUAGES for pair in load_catalogues(language, quiet=True)[0]])


def systems_of(pairs: list, language: str) -> dict:
    """Return the systems without a network, made from training pairs of one language."""
    sides = [mask(pair.source) for pair in pairs]
    sources = [text for text, _ in sides]
    goals = [mask(pair.target, known)[0] for pair, (_, known) in zip(pairs, sides, strict=True)]
    memory, dictionary = NearestNeighbour(sources, goals), WordDictionary(sources, goals, language == "zh")
    both = NeighbourOrDictionary(memory, dictionary)
    return {"copy": Copy(), "dictionary": dictionary, "neighbour": memory, "either": both}


def translations(translator: Translator, parts: dict, part: str, language: str) -> tuple[dict, list, dict]:
    """Return (name of a system -> its translations, references, sizes) of one part in one language.

    "fallback" is the model that hands over to "either". Sizes are the cosine with the nearest
    neighbour and the confidence, of each text.
    """
    systems = systems_of([pair for pair in parts["train"] if pair.language == language], language)
    pairs = [pair for pair in parts[part] if pair.language == language]
    texts, sides = [pair.source for pair in pairs], [mask(pair.source) for pair in pairs]
    asked = [text for text, _ in sides]
    out = {
        name: [unmask(text, known) for text, (_, known) in zip(system.translate(asked), sides, strict=True)]
        for name, system in systems.items()
    }
    out["model"] = translator.translate(texts, language)
    careful = WithFallback(translator, {language: systems["either"]})
    out["fallback"], _ = careful.choose(texts, out["model"], language)
    sizes = dict(
        cosine=systems["neighbour"].similarity(asked),
        confidence=translator.confidence(texts, out["model"], language),
    )
    return out, [pair.target for pair in pairs], sizes


def on_validation(translator: Translator, parts: dict) -> dict:
    """Return the scores on the validation set, at each threshold and each least cosine of a neighbour."""
    results: dict = {}
    for language in LANGUAGES:
        out, references, sizes = translations(translator, parts, "validation", language)
        for name in (*BASELINES, "model"):
            results[f"{language} {name}"] = translation_scores(out[name], references, language)
        for threshold, least in product(THRESHOLDS, COSINES):
            rows = zip(
                *(out[name] for name in ("model", "neighbour", "dictionary")), *sizes.values(), strict=True
            )
            texts = [
                ours if sure >= threshold else found if cosine >= least else looked_up
                for ours, found, looked_up, cosine, sure in rows
            ]
            name = f"{language} fallback {threshold} {least}"
            results[name] = translation_scores(texts, references, language)
    return results


def best_fallback(validation: dict) -> tuple[float, float]:
    """Return the (threshold, cosine) with the largest sum of BLEU and chrF over the languages."""

    def total(pair):
        rows = [validation[f"{language} fallback {pair[0]} {pair[1]}"] for language in LANGUAGES]
        return sum(row[metric] for row in rows for metric in METRICS)

    return max(product(THRESHOLDS, COSINES), key=total)


def measure() -> dict:
    """Return what the stored model, alone and with its fallback, and the baselines reach."""
    translator, parts = load_translator(FOLDER), load_parts()
    validation = on_validation(translator, parts)
    results: dict = dict(validation=validation, best_fallback=best_fallback(validation))
    print("best threshold and cosine on the validation set:", *results["best_fallback"])
    results |= dict(test={}, near={}, far={}, other={}, paired={}, n_train=len(parts["train"]))
    for language in LANGUAGES:
        out, references, sizes = translations(translator, parts, "test", language)
        near = sizes["cosine"] >= NEAR
        for name, keep in (("test", near >= 0), ("near", near), ("far", ~near)):
            rows = np.flatnonzero(keep)
            texts = {system: [lines[i] for i in rows] for system, lines in out.items()}
            refs = [references[i] for i in rows]
            results[name][language] = dict(n=len(rows)) | {
                system: translation_scores(lines, refs, language) for system, lines in texts.items()
            }
            for ours, theirs, metric in product(("model", "fallback"), BASELINES, METRICS):
                results["paired"][f"{language} {name} {ours} {theirs} {metric}"] = paired_p_value(
                    texts[ours], texts[theirs], refs, language, metric, n_resamples=10_000
                )
        out, references, _ = translations(translator, parts, "other", language)
        results["other"][language] = dict(n=len(references)) | {
            system: translation_scores(texts, references, language) for system, texts in out.items()
        }
    return results


def write(results: dict, trained: bool) -> None:
    """Write results.json and the card; the curve is that of the run if it `trained`, or the stored one."""
    old = FOLDER / "results.json"
    runs = json.loads(CURVE.read_bytes()) if trained else json.loads(old.read_bytes())["run"]
    results |= dict(
        run=runs, curve=[[RECIPE["batch_size"] * row["step"] for row in runs], [row["loss"] for row in runs]]
    )
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

    def pairs(ours, part):
        rows = ((name.split(" "), row) for name, row in results["paired"].items())
        return "; ".join(
            f"{language} {theirs} {metric} {gain:+.2f} (p = {p:.4f})"
            for (language, where, system, theirs, metric), (gain, p) in rows if (where, system) == (part, ours)
        )  # fmt: skip

    card = CARD.format(
        **CONFIG | RECIPE,
        n_train=results["n_train"],
        parameters=translator.model.n_parameters(),
        vocabulary=translator.tokenizer.vocab_size,
        steps=runs[-1]["step"],
        epochs=RECIPE["batch_size"] * runs[-1]["step"] / (results["n_train"] * (1 + RECIPE["joined"])),
        more=round(100 * RECIPE["joined"]),
        schedule=schedule,
        seed=SEED,
        cpu=runs[-1]["cpu"],
        machine=platform.machine(),
        scores=line(results["test"], ["model"]),
        baselines=line(results["test"], BASELINES),
        fallback=line(results["test"], ["fallback"]),
        threshold=results["best_fallback"][0],
        least=results["best_fallback"][1],
        paired=pairs("model", "test"),
        paired_fallback=pairs("fallback", "test"),
        paired_near=pairs("fallback", "near"),
        paired_far=pairs("fallback", "far"),
        other=line(results["other"], [*BASELINES, "model", "fallback"]),
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
    parser.add_argument("--steps", type=int, default=4400)
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    if not arguments.measure:
        build(arguments.threads, arguments.steps)
    write(measure(), trained=not arguments.measure)


if __name__ == "__main__":
    main()
