"""Measure what each training technique is worth, and write data/ablation.

    python tools/measure_ablation.py            # all parts; resumes where it stopped
    python tools/measure_ablation.py search     # one part: search | add | remove

- search: AdamW and Muon get the same number of random trials on the plain recipe;
- add: each technique alone on top of the plain recipe, under both optimizers as tuned for it;
- remove: each technique of the fast recipe taken away.

Losses are those of the tuning text; the validation text is not touched. Seeds are shared, so a
technique and its base differ in the technique alone. One thread; seconds are CPU seconds.
"""

import argparse
import csv
import json
import math
import random
import time
from pathlib import Path

import torch
from tqdm import tqdm

from llmcourse.data.sources.characters import load_characters
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.tune.recipes import FAST, PLAIN, train_recipe

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ablation"
SEARCH_TRIALS, FINALISTS = 24, 4
SEARCH_SEED, FINAL_SEEDS, SEEDS = 100, (101, 102, 103), (1, 2, 3)
COLUMNS = ("part", "optimizer", "technique", "seed", "loss", "seconds", "steps", "parameters", "changes")

TECHNIQUES = {  # what changes on top of the plain recipe
    "rotary positions": dict(positions="rotary"),
    "RMSNorm": dict(norm="rms"),
    "norm after (2017)": dict(norm_position="post"),
    "SwiGLU": dict(mlp="swiglu"),
    "ReLU squared": dict(mlp="relu_squared"),
    "ReLU": dict(mlp="relu"),
    "QK-norm": dict(qk_norm=True),
    "biases": dict(bias=True),
    "untied embeddings": dict(tied_embeddings=False),
    "untied, embeddings 0.1": dict(tied_embeddings=False, embedding_std=0.1),
    "zero init": dict(zero_init=True),
    "logit cap 15": dict(logit_cap=15.0),
    "value embeddings": dict(value_embeddings=True),
    "bigram table": dict(bigram_table=True),
    "token shift": dict(token_shift=True),
    "embedding shift 3": dict(embedding_shift=3),
    "one wide layer": dict(n_layers=1, d_model=72),
    "batch 6, twice the steps": dict(batch_size=6, steps=500),
    "batch 24, half the steps": dict(batch_size=24, steps=125),
    "no warmup": dict(warmup_steps=0),
    "cosine": dict(schedule="cosine"),
    "stable, then decay": dict(schedule="stable_decay"),
    "constant rate": dict(schedule="constant"),
    "no weight decay": dict(weight_decay=0.0),
    "beta2 0.999": dict(betas=(0.9, 0.999)),
    "no clipping": dict(clip=None),
    "dropout 0.1": dict(dropout=0.1),
}
REMOVALS = {  # what changes in the fast recipe
    "without embedding shift": dict(embedding_shift=0),
    "tied embeddings": dict(tied_embeddings=True, embedding_std=0.02),
    "small embeddings": dict(embedding_std=0.02),
    "learned positions": dict(positions="learned"),
    "rotary positions": dict(positions="rotary"),
    "token shift added": dict(token_shift=True),
    "two layers": dict(n_layers=2),
    "GELU": dict(mlp="gelu"),
    "RMSNorm": dict(norm="rms"),
    "cosine": dict(schedule="cosine"),
    "stable, then decay": dict(schedule="stable_decay"),
    "batch 10, twice the steps": dict(batch_size=10, steps=2 * FAST.steps),
    "half the steps": dict(steps=FAST.steps // 2),
}


class Runs:
    """The rows of runs.csv; a run that is there is not made again."""

    def __init__(self, path: Path):
        self.path, self.rows = path, []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        self.text = load_characters(length=None)

    def make(self, part, optimizer, technique, recipe, changes, seed) -> float:
        """Return the loss of a run on the tuning text, from the table or by training."""
        key = (part, optimizer, technique, str(seed), json.dumps(changes))
        for row in self.rows:
            if (row["part"], row["optimizer"], row["technique"], row["seed"], row["changes"]) == key:
                return float(row["loss"])
        recipe = recipe.change(**changes)
        model = recipe.build(self.text.vocab_size, seed)
        began = time.process_time()
        try:
            for _ in train_recipe(recipe, model, self.text.train, seed):
                pass
            seconds = time.process_time() - began
            loss = evaluate_loss(model, self.text.tuning, batch_size=64)
        except FloatingPointError:  # a rate that is far too high
            seconds, loss = time.process_time() - began, math.inf
        numbers = (seed, round(loss, 4), round(seconds, 2), recipe.steps, model.n_parameters())
        row = dict(zip(COLUMNS, (part, optimizer, technique, *numbers, json.dumps(changes)), strict=True))
        self.rows.append({name: str(value) for name, value in row.items()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:  # a line a run: nothing is lost
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        return loss


def draw(optimizer: str, rng: random.Random) -> dict:
    """Return one random setting; both optimizers have two rates, a momentum and a decay to choose."""

    def between(low, high):
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.2g}")

    if optimizer == "adamw":
        return dict(
            hidden_lr=between(3e-4, 3e-2),
            lr=between(1e-3, 4e-2),
            betas=(rng.choice([0.8, 0.9, 0.95]), 0.99),
            weight_decay=rng.choice([0.0, 0.1, 0.3]),
        )
    return dict(
        muon_lr=between(0.01, 0.2),
        lr=between(2e-3, 4e-2),
        momentum=rng.choice([0.8, 0.9, 0.95]),
        weight_decay=rng.choice([0.0, 0.1, 0.3]),
    )


def search(runs: Runs, part: str, base, optimizers=("adamw", "muon")) -> dict[str, dict]:
    """Return the best setting of each optimizer for a recipe, after equal numbers of trials."""
    best = {}
    for optimizer in optimizers:
        rng = random.Random(0)
        settings = [draw(optimizer, rng) for _ in range(SEARCH_TRIALS)]
        bar = tqdm(settings, desc=f"{part} {optimizer}")
        first = [runs.make(part, optimizer, "trial", base, s, SEARCH_SEED) for s in bar]
        order = sorted(range(SEARCH_TRIALS), key=lambda i: first[i])[:FINALISTS]
        means = {}
        for i in order:
            losses = [runs.make(part, optimizer, "finalist", base, settings[i], seed) for seed in FINAL_SEEDS]
            means[i] = sum(losses) / len(losses)
        best[optimizer] = settings[min(means, key=means.get)]
        print(optimizer, best[optimizer], f"{min(means.values()):.3f}")
    return best


def compare(runs: Runs, part: str, recipes: dict, techniques: dict) -> None:
    """Run each technique on each recipe over the seeds."""
    jobs = [
        (optimizer, recipe, name, changes)
        for optimizer, recipe in recipes.items()
        for name, changes in {"base": {}, **techniques}.items()
    ]
    for optimizer, recipe, name, changes in tqdm(jobs, desc=part):
        for seed in SEEDS:
            runs.make(part, optimizer, name, recipe, changes, seed)


def main() -> None:
    """Read which parts to make, and make them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["search", "add", "remove"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(FOLDER / "runs.csv")
    best = search(runs, "search", PLAIN)
    if "add" in options.parts:
        recipes = {optimizer: PLAIN.change(**setting) for optimizer, setting in best.items()}
        compare(runs, "add", recipes, TECHNIQUES)
    if "remove" in options.parts:
        (without,) = search(runs, "search fast", FAST.change(muon_lr=None), ["adamw"]).values()
        tuned = dict(muon_lr=None, betas=FAST.betas) | without
        compare(runs, "remove", {"muon": FAST}, {"AdamW, tuned, for Muon": tuned} | REMOVALS)


if __name__ == "__main__":
    main()
