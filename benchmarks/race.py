"""The race of chapter 5c: seconds to the loss of nanoGPT's CPU recipe, and what the same time buys.

As a command, `python -m benchmarks.race fast 11` trains one recipe with one seed and prints a row.
"""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from benchmarks.measure import Result
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ablation"
SEEDS = (2001, 2002, 2003, 2004, 2005, 2006)  # used nowhere else
STRONG_SEEDS = 3  # the third recipe runs with the first of them
THREADS = 1  # for both sides: matrices this small gain little from more
N_POINTS = 8  # looks at the tuning text on the way; their time does not count


def run(name: str, seed: int, device: str = "cpu") -> dict:
    """Train one recipe; return its validation loss, seconds of training, and curve."""
    import torch

    from llmcourse.data.sources.characters import load_characters
    from llmcourse.evaluate.likelihood import evaluate_loss
    from llmcourse.tune import recipes

    torch.set_num_threads(THREADS)
    recipe, text = getattr(recipes, name.upper()), load_characters(length=None, quiet=True)
    model = recipe.build(text.vocab_size, seed).to(device)
    some = text.tuning[: 64 * 100 + 1]
    curve = []
    options = dict(evaluate=lambda model: evaluate_loss(model, some), eval_every=recipe.steps // N_POINTS)
    for step in recipes.train_recipe(recipe, model, text.train, seed, **options):
        if step.validation_loss is not None:
            curve.append((step.step, round(step.seconds, 3), round(step.validation_loss, 4)))
    loss = evaluate_loss(model, text.validation, batch_size=64)
    more = evaluate_loss(model, text.validation, stride=32, batch_size=64) if name == "strong" else None
    return dict(
        recipe=name,
        seed=seed,
        loss=round(loss, 4),
        loss_stride_32=None if more is None else round(more, 4),
        training_seconds=round(step.seconds, 3),
        steps=step.step,
        tokens=step.tokens,
        parameters=model.n_parameters(),
        threads=THREADS,
        curve=curve,
    )


def whole_command(name: str, seed: int) -> dict:
    """Run `python -m benchmarks.race` in a process of its own; add the seconds of the whole command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.race", name, str(seed)]
    output = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    seconds = time.perf_counter() - began
    return json.loads(output.splitlines()[-1]) | dict(seconds=round(seconds, 3))


def race(rounds: int) -> Iterator[Result]:
    """Alternate the three recipes over fresh seeds; the table of runs goes to data/ablation."""
    rows: dict[str, list[dict]] = {"nanogpt": [], "fast": [], "strong": []}
    for i, seed in enumerate(SEEDS):
        for name in rows if i < STRONG_SEEDS else ("nanogpt", "fast"):
            rows[name].append(whole_command(name, seed))
    target = mean(row["loss"] for row in rows["nanogpt"])
    columns = ("recipe", "seed", "loss", "loss_stride_32", "training_seconds", "seconds", "steps", "tokens",
               "parameters", "threads", "curve")  # fmt: skip
    with (
        atomic_write(FOLDER / "race.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in (row for part in rows.values() for row in part):
            writer.writerow(row | dict(curve=json.dumps(row["curve"])))
    fast, theirs, strong = rows["fast"], rows["nanogpt"], rows["strong"]
    under = sum(row["loss"] < target for row in fast)
    note = (
        f"one thread; {under} of {len(fast)} fresh seeds end below the recipe's mean of {target:.3f} "
        f"(ours {mean(row['loss'] for row in fast):.3f}); theirs: nanoGPT's CPU recipe in the same loop"
    )
    for what, column in (("race, training", "training_seconds"), ("race, whole command", "seconds")):
        yield Result("race", what, [r[column] for r in fast], [r[column] for r in theirs], note)
    note = (
        f"one thread; {strong[0]['parameters']:,} parameters end at {mean(row['loss'] for row in strong):.3f} "
        f"({min(row['loss'] for row in strong):.3f}-{max(row['loss'] for row in strong):.3f}), "
        f"the recipe's {theirs[0]['parameters']:,} at {target:.3f}; with at least 32 characters before each, "
        f"{mean(row['loss_stride_32'] for row in strong):.3f}"
    )
    column = "training_seconds"
    same = theirs[: len(strong)]
    yield Result("race", "race, the same time", [r[column] for r in strong], [r[column] for r in same], note)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
