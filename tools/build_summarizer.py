"""Train the summarizer of chapter 6b, which can copy: `python tools/build_summarizer.py`.

It resumes where it stopped. The model, a card, what it reached (results.json) and the score of each test
docstring (scores.csv) go to data/checkpoints/summarization/. `--measure` only measures again what lies
there; `--ablation` trains the chapter's small model with and without the pointer, over seeds (ablation.json);
`--descriptions` tries the stored one on Debian's descriptions (descriptions.json; needs apt).
"""

import argparse
import hashlib
import json
import platform
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from llmcourse.data.manifest import fetch
from llmcourse.data.pairs import PairBatches
from llmcourse.data.sources.descriptions import load_descriptions
from llmcourse.data.sources.docstrings import SPLIT, load_docstrings, split_docstrings
from llmcourse.data.summary_text import END, PAD, START, encode_pair, source_text, train_tokenizer
from llmcourse.decode.summarizer import Summarizer, load_summarizer
from llmcourse.evaluate.rouge import NAMES, rouge_scores, source_share
from llmcourse.evaluate.significance import bootstrap_interval, paired_comparison
from llmcourse.losses import seq2seq_loss, smoothed_next_token_loss
from llmcourse.optim import muon_and_adamw
from llmcourse.pointer import PointerConfig, PointerGenerator
from llmcourse.pretrained import save_model
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch06b_summarization import systems as room
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "data" / "checkpoints" / "summarization"
RUNS = ROOT / "runs"
SEED, VOCABULARY = 1234, 4000
CONFIG = dict(
    context_length=48,
    source_context_length=160,
    d_model=128,
    n_heads=4,
    n_layers=2,
    n_encoder_layers=3,
    dropout=0.1,
)
RECIPE = dict(muon_lr=0.02, adamw_lr=3e-3, weight_decay=0.1, batch_size=64, smoothing=0.1)
SEEDS, SMALL_VOCABULARY = (1, 2, 3), 2000  # of the small models with and without the pointer

CARD = """# Summarizer of docstrings, with a pointer

An encoder-decoder that reads a name in code, its parameters and the text of a docstring, and writes its first
sentence. It can copy from what it reads. It is made to be looked into in chapter 6b.

| | |
|---|---|
| Made by | `python tools/build_summarizer.py` |
| Data | {n_train:,} first sentences of docstrings of {n_packages} packages, {n_alone:,} of them with a name and no text (data/manifest.toml has versions and licences: Apache-2.0, MIT, BSD); {test_packages} are held out as wholes ({n_test:,} docstrings), and near copies of a training text are left out |
| Model | {parameters:,} parameters: {n_encoder_layers} blocks in the encoder, {n_layers} in the decoder, width {d_model}, {n_heads} heads, Llama's parts, one embedding for source, target and output, a pointer (See et al. 2017, with an attention of its own) |
| Tokenizer | our byte-level BPE, {vocabulary} tokens with the special ones, trained on both sides of the training pairs |
| Training | {steps} steps of {batch_size} pairs ({epochs:.1f} epochs), Muon (matrices in the blocks, {muon_lr}) and AdamW (the rest, {adamw_lr}), weight decay {weight_decay}, dropout {dropout}, label smoothing {smoothing}, {schedule}, bfloat16 matrix products, seed {seed} |
| Time | {cpu:.0f} s of processor time, on one thread of {machine} |
| Test, greedy, no two tokens in a row twice | {scores} |
| Against each baseline, ROUGE-L, paired | {paired} |
| The same, with the five packages drawn as wholes | {by_package} |
| Content words that the source has | {shares} |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | First sentences of docstrings, from a name and up to {source_context_length} tokens; it may say what the text does not, fluently: a person must read what it writes |
"""


def load_parts() -> dict:
    """Return the parts of all docstrings. Raises FileNotFoundError where a package is missing: no stand-in here."""
    pairs = []
    for part, packages in SPLIT.items():
        for package in packages:
            fetch(f"docstrings-{package}", quiet=True)
            pairs += load_docstrings(package, alone=part == "train", quiet=True)[0]
    return split_docstrings(pairs)


def prepared(parts: dict) -> tuple:
    """Return (tokenizer, encoded training pairs); the few whose first sentence does not fit are left out."""
    tokenizer = train_tokenizer(parts["train"], VOCABULARY)
    encoded = [encode_pair(tokenizer, d, CONFIG["source_context_length"]) for d in parts["train"]]
    return tokenizer, [pair for pair in encoded if len(pair[1]) < CONFIG["context_length"]]


def run(tokenizer, encoded, copy: bool, seed: int, steps: int, **checkpoint) -> tuple:
    """Return a model and the steps of its training, which is done as they are taken."""
    special = tokenizer.special_tokens
    torch.manual_seed(seed)
    model = PointerGenerator(PointerConfig(tokenizer.vocab_size, copy=copy, **CONFIG))
    rates = {name: RECIPE[name] for name in ("muon_lr", "adamw_lr", "weight_decay")}
    return model, train(
        model,
        PairBatches(encoded, special[START], special[END], RECIPE["batch_size"], special[PAD], seed),
        steps=steps,
        loss=partial(seq2seq_loss, loss=smoothed_next_token_loss(RECIPE["smoothing"])),
        optimizer=muon_and_adamw(model, **rates, dtype=torch.bfloat16),
        schedule=warmup_linear(steps),
        dtype=torch.bfloat16,
        **checkpoint,
    )


def write_json(path: Path, content) -> None:
    """Write a file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def build(steps: int) -> None:
    """Train tokenizer and model, or go on, and save them."""
    parts = load_parts()
    tokenizer, encoded = prepared(parts)
    path = RUNS / "summarizer-curve.json"
    curve = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    spent, begun = curve[-1]["cpu"] if curve else 0.0, time.process_time()
    options = dict(checkpoint=RUNS / "summarizer.pt", checkpoint_every=50, resume=True)
    model, training = run(tokenizer, encoded, True, SEED, steps, **options)
    for step in training:
        if step.step % 50 == 0:
            cpu = round(spent + time.process_time() - begun, 1)
            curve.append(dict(step=step.step, loss=round(step.loss, 4), lr=step.lr, cpu=cpu, of=steps))
            print(curve[-1], flush=True)
            write_json(path, curve)
    save_model(FOLDER, model, tokenizer)


def measure() -> None:
    """Measure the stored model and the baselines on the test packages; write results, scores and the card."""
    parts, summarizer = load_parts(), load_summarizer(FOLDER)
    test = parts["test"]
    references, read = [d.target for d in test], [source_text(d) for d in test]
    systems = room.without_training(test, room.sentence_vectors)
    systems["model"] = summarizer.summarize(test, cut=True)
    scores = {name: rouge_scores(texts, references) for name, texts in systems.items()}
    shares = {name: source_share(texts, read) for name, texts in systems.items()}
    packages = [d.package for d in test]
    with atomic_write(FOLDER / "scores.csv") as temporary:
        np.savetxt(
            temporary,
            np.stack([scores[name]["rougeL"] for name in systems], 1),
            fmt="%.4f",
            delimiter=",",
            header=",".join(systems),
            comments="",
        )
    results = dict(
        n={part: len(found) for part, found in parts.items()}
        | dict(alone=sum(not d.source for d in parts["train"])),
        test={
            name: {metric: [float(row[metric].mean()), *bootstrap_interval(row[metric])] for metric in NAMES}
            | dict(
                share=float(shares[name].mean()),
                words=float(np.mean([len(t.split()) for t in systems[name]])),
            )
            for name, row in scores.items()
        },
        reference_share=float(source_share(references, read).mean()),
        packages={
            package: {
                name: float(row["rougeL"][[p == package for p in packages]].mean())
                for name, row in scores.items()
            }
            for package in SPLIT["test"]
        },
        paired={
            name: vars(paired_comparison(scores["model"]["rougeL"], row["rougeL"]))
            for name, row in scores.items()
            if name != "model"
        },
        by_package={  # the five packages drawn as wholes
            name: vars(paired_comparison(scores["model"]["rougeL"], row["rougeL"], groups=packages))
            for name, row in scores.items()
            if name != "model"
        },
        textrank=[systems["TextRank"][i] != systems["lead-1"][i] for i in range(len(test))].count(True),
    )
    old, path = FOLDER / "results.json", RUNS / "summarizer-curve.json"
    results["run"] = json.loads((path if path.exists() else old).read_text(encoding="utf-8"))
    if isinstance(results["run"], dict):
        results["run"] = results["run"]["run"]
    write_json(old, results)
    write_card(results, summarizer)


def gains(rows: dict) -> str:
    """Return comparisons as a line of the card."""
    return "; ".join(
        f"{name} {row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}, p = {row['p_value']:.4f})"
        for name, row in rows.items()
    )


def write_card(results: dict, summarizer: Summarizer) -> None:
    """Write the card from what was measured."""
    weights, runs = (FOLDER / "model.safetensors").read_bytes(), results["run"]
    last = {row["of"]: row["step"] for row in runs}  # a run may be planned anew on the way
    plans = ", ".join(f"up to step {step} as one of {of}" for of, step in last.items())
    card = CARD.format(
        **CONFIG | RECIPE,
        n_train=results["n"]["train"],
        n_alone=results["n"]["alone"],
        n_test=results["n"]["test"],
        n_packages=len(SPLIT["train"]),
        test_packages=", ".join(SPLIT["test"]),
        parameters=summarizer.model.n_parameters(),
        vocabulary=summarizer.tokenizer.vocab_size,
        steps=runs[-1]["step"],
        epochs=RECIPE["batch_size"] * runs[-1]["step"] / results["n"]["train"],
        schedule="linear decay to 0"
        + (f", planned anew when time allowed: {plans}" if len(last) > 1 else ""),
        seed=SEED,
        cpu=runs[-1]["cpu"],
        machine=platform.machine(),
        scores="; ".join(
            f"{name} " + ", ".join(f"{m} {row[m][0]:.3f} ({row[m][1]:.3f} to {row[m][2]:.3f})" for m in NAMES)
            for name, row in results["test"].items()
        ),
        paired=gains(results["paired"]),
        by_package=gains(results["by_package"]),
        shares="; ".join(f"{name} {row['share']:.3f}" for name, row in results["test"].items())
        + f"; people {results['reference_share']:.3f}",
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(FOLDER / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


def ablation() -> None:
    """Train chapter 6b's small model with and without the pointer, over seeds; go on where it stopped."""
    path = FOLDER / "ablation.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    parts, _ = room.load_some()
    tokenizer = train_tokenizer(parts["train"], SMALL_VOCABULARY)
    test = parts["test"]
    references, read = [d.target for d in test], [source_text(d) for d in test]
    for seed in SEEDS:
        for copy in (True, False):
            if any((row["seed"], row["copy"]) == (seed, copy) for row in rows):
                continue
            begun = time.process_time()
            summarizer, history = room.train_small(tokenizer, parts["train"], copy, seed)
            texts = summarizer.summarize(test, cut=True)
            scores = rouge_scores(texts, references)
            loss = float(np.mean([step.loss for step in history[-20:]]))
            rows.append(
                dict(seed=seed, copy=copy, steps=len(history), n_test=len(test), loss=round(loss, 4))
                | {metric: round(float(scores[metric].mean()), 4) for metric in NAMES}
                | dict(share=round(float(source_share(texts, read).mean()), 4))
                | dict(cpu=round(time.process_time() - begun, 1))
                | dict(each=[round(float(score), 3) for score in scores["rougeL"]])
            )
            print({name: value for name, value in rows[-1].items() if name != "each"}, flush=True)
            write_json(path, rows)


def descriptions(n: int = 1000) -> None:
    """Try the stored model on Debian's descriptions, a kind of text that it never learned; write descriptions.json."""
    found, summarizer = load_descriptions(), load_summarizer(FOLDER)
    asked = found[:: len(found) // n][:n]
    references = [d.target for d in asked]
    systems = room.without_training(asked, room.sentence_vectors) | {
        "model": summarizer.summarize(asked, cut=True)
    }
    scores = {name: rouge_scores(texts, references)["rougeL"] for name, texts in systems.items()}
    write_json(
        FOLDER / "descriptions.json",
        dict(
            of=len(found),
            n=len(asked),
            rougeL={name: [float(row.mean()), *bootstrap_interval(row)] for name, row in scores.items()},
            paired={
                name: vars(paired_comparison(scores["model"], row))
                for name, row in scores.items()
                if name != "model"
            },
        ),
    )
    print((FOLDER / "descriptions.json").read_text(encoding="utf-8"))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--descriptions", action="store_true")
    arguments = parser.parse_args()
    set_up(SEED, threads=arguments.threads)
    if arguments.ablation:
        return ablation()
    if arguments.descriptions:
        return descriptions()
    if not arguments.measure:
        build(arguments.steps)
    measure()


if __name__ == "__main__":
    main()
