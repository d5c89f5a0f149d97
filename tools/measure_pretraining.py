"""Measure what pretraining is worth at each number of labels, for chapter 2: data/pretraining/scores.csv.

    python tools/measure_pretraining.py

Every method gets the same labelled reviews, drawn anew for each seed, and is judged on the same 1,000
sentences about films that no method was trained on. One thread; about 6 minutes of processor time.
"""

import csv
import random
import time
from pathlib import Path

import torch
import transformers

from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.sources.reviews import load_reviews, split_by_movie
from llmcourse.pretrained import load_course_model
from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch02_core_concepts.methods import (
    draw,
    features,
    lower_layers,
    one_block,
    probe,
    random_weights,
    reviews_for,
    tf_idf,
)

FOLDER = Path(__file__).resolve().parents[1] / "data" / "pretraining"
SEEDS, LABELS, N_TEST = range(1, 11), (20, 100, 500, 2000), 1000
COLUMNS = ("method", "labels", "seed", "accuracy")


def measure() -> list[tuple]:
    """Return rows (method, labels, seed, accuracy); with all labels there is one draw, and the seed is 0."""
    gpt, tokenizer = load_course_model("pretrained")
    train, _, test = split_by_movie(load_reviews())
    test = random.Random(0).sample(test, N_TEST)
    train, test = reviews_for(tokenizer, train), reviews_for(tokenizer, test)
    encoder = lower_layers(transformers.AutoModel.from_pretrained(encoder_name()).eval())
    word_piece = transformers.AutoTokenizer.from_pretrained(encoder_name())
    draws = {(n, seed): draw(len(train), n, seed) for n in LABELS for seed in SEEDS}
    few = sorted({i for (n, _), chosen in draws.items() if n <= 500 for i in chosen})
    x_train, x_test = (features(encoder, word_piece, part.texts) for part in (train, test))
    untrained = random_weights(encoder, seed=SEEDS[0]).eval()
    z_train = dict(zip(few, features(untrained, word_piece, train.pick(few).texts), strict=True))
    z_test = features(untrained, word_piece, test.texts)
    rows = [("TF-IDF", len(train), 0, tf_idf(train, test).mean())]
    rows += [("MiniLM, frozen", len(train), 0, probe(x_train, train.labels, x_test, test.labels).mean())]
    for (n, seed), chosen in draws.items():
        some = train.pick(chosen)
        scores = {
            "TF-IDF": tf_idf(some, test).mean(),
            "scratch": one_block(gpt, some, test, seed, pretrained=False),
            "course model": one_block(gpt, some, test, seed, pretrained=True),
            "MiniLM, frozen": probe(x_train[chosen], some.labels, x_test, test.labels).mean(),
        }
        if n <= 500:
            z = [z_train[i] for i in chosen]
            scores["MiniLM, random"] = probe(z, some.labels, z_test, test.labels).mean()
        rows += [(method, n, seed, score) for method, score in scores.items()]
        print(n, seed, {method: round(float(score), 3) for method, score in scores.items()}, flush=True)
    return rows


def main() -> None:
    """Measure, and write the table."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = measure()
    with (
        atomic_write(FOLDER / "scores.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((m, n, seed, f"{score:.4f}") for m, n, seed, score in rows)
    print(f"{time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
