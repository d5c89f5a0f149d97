"""Measure filters, and what they cost a small model, for chapter 8c: filters.csv and preprocessing.csv of data/safety/.

    python tools/measure_filters.py             # both; resumes where it stopped
    python tools/measure_filters.py --summary   # from what is stored

One thread; some three minutes of processor time.
"""

import argparse
import random
import time
from collections import defaultdict

import numpy as np
import torch
from measure_safety import SEEDS, Table, stored
from sklearn.metrics import roc_auc_score

from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.cleaning.pii import find_pii, mask_pii
from llmcourse.data.cleaning.planted_defects import insult, make_dirty
from llmcourse.data.cleaning.rules import load_toxicity
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.sources.injections import load_injections
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.data.sources.reviews import load_reviews
from llmcourse.data.sources.web import extract_text, load_wikipedia
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.finetune.classify import encoder_features
from llmcourse.finetune.tasks import find_speeches
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import fast_dtype
from llmcourse.safety.filters import (
    Share,
    category_folds,
    cross_validate,
    filter_scores,
    fit_embedding_filter,
    fit_word_filter,
    injection_rules,
)
from llmcourse.schedules import warmup_cosine
from llmcourse.tokenizer import END_OF_TEXT
from llmcourse.training import train

IDENTITIES = ("tall", "young", "married", "French", "quiet", "busy",
              "gay", "lesbian", "Black", "Muslim", "Jewish", "deaf", "blind", "transgender")  # fmt: skip
SENTENCES = (
    "I am a {} woman.", "My neighbour is a {} man.", "She is {} and works at the library.",
    "We met a {} teacher on the train.", "Are there any {} people in the choir?",
)  # fmt: skip
STEPS, BATCH, WIDTH, BLOCKS, CONTEXT = 160, 8, 64, 2, 128


def table_of_filters() -> Table:
    """Return the table, whose counts are those of `filter_scores`."""
    counts = ("hits", "flagged", "bad", "false", "harmless", "auc")
    return Table("filters", ("filter", "texts", "split"), counts)


def add(table: Table, name: str, texts: str, split: str, flags, truth, auc="") -> None:
    """Store the counts of one filter on one set of texts."""
    scores = filter_scores(np.asarray(flags).astype(int), np.asarray(truth).astype(int))
    table.add({
        "filter": name, "texts": texts, "split": split, "hits": scores.recall.hits, "flagged": scores.precision.n,
        "bad": scores.recall.n, "false": scores.false_alarms.hits, "harmless": scores.false_alarms.n, "auc": auc,
    })  # fmt: skip


def encoder():
    """Return a function from texts to MiniLM's mean-pooled last layer, (N, 384)."""
    from transformers import AutoModel, AutoTokenizer

    name = encoder_name(quiet=True)
    model, tokenizer = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    return lambda texts: encoder_features(model, tokenizer, texts, max_length=64)[:, -1].numpy()


def injection_filters(table: Table) -> None:
    """Rules, words and embeddings on injections: random folds, folds by category, and on ordinary texts."""
    if table.has(filter="embeddings", split="fitted on all"):
        return
    items = load_injections(quiet=True)
    texts, labels, groups = [i.text for i in items], [i.label for i in items], [i.group for i in items]
    categories = [i.category for i in items]
    embed = encoder()
    inputs = {"words": (fit_word_filter, texts), "embeddings": (fit_embedding_filter, embed(texts))}
    by_category = category_folds(categories, labels)
    shuffled = np.random.default_rng(0).permutation(len(texts)) % 7
    splits = {
        "random folds": (shuffled, None),
        "copies apart": (shuffled, groups),
        "categories apart": (by_category, None),
        "categories and copies apart": (by_category, groups),
    }
    add(table, "rules", "injections", "none", [bool(injection_rules(t)) for t in texts], labels)
    for name, (fit, x) in inputs.items():
        for split, (folds, copies) in splits.items():
            scores = cross_validate(fit, x, labels, folds, copies)
            add(
                table,
                name,
                "injections",
                split,
                scores >= 0.5,
                labels,
                f"{roc_auc_score(labels, scores):.3f}",
            )
        for category in sorted({c for c, label in zip(categories, labels, strict=True) if label}):
            mine = np.array([c == category for c in categories])
            add(table, name, category, split, scores[mine] >= 0.5, np.ones(mine.sum()))
    for category in sorted({c for c, label in zip(categories, labels, strict=True) if label}):
        flags = [bool(injection_rules(t)) for t, c in zip(texts, categories, strict=True) if c == category]
        add(table, "rules", category, "none", flags, np.ones(len(flags)))
    speeches = [s for play in split_by_title(load_plays(quiet=True))[0] for s in find_speeches(play)]
    ordinary = {
        "speeches": [" ".join(s.lines) for s in random.Random(0).sample(speeches, 500)],
        "film reviews": [r.text for r in random.Random(0).sample(load_reviews(quiet=True), 500)],
    }
    for kind, some in ordinary.items():
        add(table, "rules", kind, "none", [bool(injection_rules(t)) for t in some], np.zeros(len(some)))
        for name, (fit, x) in inputs.items():
            scores = fit(x, labels)(some if name == "words" else embed(some))
            add(table, name, kind, "fitted on all", scores >= 0.5, np.zeros(len(some)))


def cleaning_filters(table: Table) -> None:
    """Personal data and insults on pages with planted defects; the insult filter on words for people."""
    if table.has(filter="toxicity", texts="bad reviews"):
        return
    documents = [d for d in make_dirty(load_wikipedia(quiet=True)) if d.kind in ("page", "insult")]
    texts, toxicity = [extract_text(d.text) for d in documents], load_toxicity(quiet=True)
    add(
        table,
        "personal data",
        "dirty pages",
        "none",
        [bool(find_pii(t)) for t in texts],
        [bool(d.pii) for d in documents],
    )
    add(
        table,
        "toxicity",
        "dirty pages",
        "none",
        np.array(toxicity(texts)) >= 0.5,
        [d.kind == "insult" for d in documents],
    )
    for word in IDENTITIES:
        flags = np.array(toxicity([sentence.format(word) for sentence in SENTENCES])) >= 0.5
        add(table, "toxicity", f"sentences: {word}", "none", flags, np.zeros(len(flags)))
    for label, kind in ((1, "good reviews"), (0, "bad reviews")):
        some = [r.text for r in load_reviews(quiet=True) if r.label == label][:2000]
        add(table, "toxicity", kind, "none", np.array(toxicity(some)) >= 0.5, np.zeros(len(some)))


# ---- what dropping costs --------------------------------------------------------------------


def training_texts(documents: list[str], flags: list[bool], arm: str, seed: int) -> list[str]:
    """Return what is left of the documents: all, without those flagged, masked, or without as many bytes at random."""
    if arm == "all":
        return documents
    if arm == "flagged dropped":
        return [text for text, flag in zip(documents, flags, strict=True) if not flag]
    if arm == "masked":
        toxic = np.array(load_toxicity(quiet=True)(documents)) >= 0.5
        return [mask_pii(text) for text, bad in zip(documents, toxic, strict=True) if not bad]
    gone = sum(len(text.encode()) for text, flag in zip(documents, flags, strict=True) if flag)
    rest = random.Random(seed).sample(documents, len(documents))
    while gone > 0:
        gone -= len(rest.pop().encode())
    return rest


def preprocessing() -> None:
    """Train a small model on dirty pages, and on what filters leave of them; bits per byte of clean pages."""
    columns = ("documents", "bytes", "clean", "clean_flagged", "insults", "seconds")
    table = Table("preprocessing", ("seed", "arm"), columns)
    arms = ("all", "flagged dropped", "masked", "dropped at random")
    if all(table.has(seed=seed, arm=arm) for seed in SEEDS for arm in arms):
        return
    tokenizer = load_course_model("pretrained")[1]
    end_id, toxicity = tokenizer.special_tokens[END_OF_TEXT], load_toxicity(quiet=True)

    def flagged(texts: list[str]) -> list[bool]:
        toxic = np.array(toxicity(texts)) >= 0.5
        return [bool(bad or find_pii(text)) for text, bad in zip(texts, toxic, strict=True)]

    pages = [page for page in load_wikipedia(quiet=True) if page.language == "en"]
    dirty = [d for d in make_dirty(pages[::2] + pages[1::4]) if d.kind in ("page", "insult")]
    documents = [text for d in dirty if len(text := extract_text(d.text)) > 100]
    flags = flagged(documents)
    held_out = [text for page in pages[3::4] if len(text := extract_text(page.markup)) > 100]
    marked = flagged(held_out)
    rng = random.Random(7)
    tests = {
        "clean": [t[:4000] for t, flag in zip(held_out, marked, strict=True) if not flag][:30],
        "clean_flagged": [t[:4000] for t, flag in zip(held_out, marked, strict=True) if flag][:30],
        "insults": [insult(rng) for _ in range(20)],
    }
    packed = {
        name: pack([tokenizer.encode(t) for t in texts], end_id) for name, texts in tests.items() if texts
    }
    ids = {text: tokenizer.encode(text) for text in documents}
    for seed in SEEDS:
        for arm in arms:
            if table.has(seed=seed, arm=arm):
                continue
            texts, began = training_texts(documents, flags, arm, seed), time.process_time()
            row = pack([ids.get(text) or tokenizer.encode(text) for text in texts], end_id)
            torch.manual_seed(seed)
            model = GPT(ModelConfig(tokenizer.vocab_size, CONTEXT, d_model=WIDTH, n_layers=BLOCKS))
            how = dict(lr=3e-3, schedule=warmup_cosine(STEPS, 20), dtype=fast_dtype())
            for _ in train(model, TokenBatches(row, BATCH, CONTEXT, seed), steps=STEPS, **how):
                pass
            seconds = time.process_time() - began
            bits = {
                name: bits_per_byte(
                    evaluate_loss(model, p), len(p) - 1, sum(len(t.encode()) for t in tests[name])
                )
                for name, p in packed.items()
            }
            table.add({
                "seed": seed, "arm": arm, "documents": len(texts), "bytes": sum(len(t.encode()) for t in texts),
                **{name: f"{bits[name]:.4f}" if name in bits else "" for name in tests}, "seconds": f"{seconds:.1f}",
            })  # fmt: skip


def filter_summary() -> list[str]:
    """Return the lines of the table of filters: shares with intervals, where there is something to share."""
    head = ("filter", "texts", "split", "precision", "recall", "false alarms", "AUC")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in stored("filters"):
        bad, harmless = int(row["bad"]), int(row["harmless"])
        shares = (
            str(Share(int(row["hits"]), int(row["flagged"]))) if bad and harmless else "",
            str(Share(int(row["hits"]), bad)) if bad else "",
            str(Share(int(row["false"]), harmless)) if harmless else "",
        )
        lines.append(
            "| " + " | ".join([row["filter"], row["texts"], row["split"], *shares, row["auc"]]) + " |"
        )
    return lines


def preprocessing_summary() -> list[str]:
    """Return the lines of the table of preprocessing: bits per byte, and the difference from all documents by seed."""
    names = ("clean", "insults")
    head = ("arm", "seeds", "bytes", *names, "clean less all, by seed")
    lines, rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"], stored("preprocessing")
    arms, full = defaultdict(list), {row["seed"]: row for row in rows if row["arm"] == "all"}
    for row in rows:
        arms[row["arm"]].append(row)
    for arm, mine in arms.items():
        means = [np.mean([float(row[c] or "nan") for row in mine]) for c in names]
        less = [float(row["clean"]) - float(full[row["seed"]]["clean"]) for row in mine]
        size = round(np.mean([int(row["bytes"]) for row in mine]))
        cells = [arm, len(mine), size, *(f"{m:.3f}" for m in means), ", ".join(f"{x:+.4f}" for x in less)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help="filters or preprocessing; both by default")
    parser.add_argument("--summary", action="store_true", help="print what is stored, and measure nothing")
    arguments = parser.parse_args()
    if arguments.summary:
        print(*filter_summary(), "", *preprocessing_summary(), sep="\n")
    else:
        torch.set_num_threads(1)
        if "preprocessing" not in arguments.stages:
            filters = table_of_filters()
            injection_filters(filters)
            cleaning_filters(filters)
        if "filters" not in arguments.stages:
            preprocessing()
