"""Score methods that look for circuits on models whose circuit is known: data/circuits/.

    python tools/measure_circuits.py --seeds 0 1 2

`found.csv`: what each method names in each planted model, with the heads that it missed, its false alarms, and how
faithful what it names is. `copies.csv`: the same where the last head stands there two or three times. `trained.csv`:
circuits that were trained, and the accuracy with one of their heads less. What is stored is not repeated. One
thread; about 4 minutes of processor time.
"""

import argparse
import csv
from pathlib import Path

import torch

from llmcourse.interpret.circuits import (
    THRESHOLD,
    all_heads,
    compare_circuits,
    faithfulness,
    find_circuit,
    prune_circuit,
)
from llmcourse.interpret.heads import head_scores
from llmcourse.interpret.lens import logit_contributions
from llmcourse.interpret.planted import Planted, plant
from llmcourse.interpret.planted_tasks import TASKS
from llmcourse.interpret.planted_texts import Pairs
from llmcourse.interpret.planted_training import train_planted
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "circuits"
TEXTS, LOOKS = (
    60,
    0.3,
)  # texts for a method; the attention score from which a head is called by a pattern's name
COLUMNS = ("task", "seed", "method", "true", "found", "right", "missed", "false", "faithful", "faithful_mean")
COPIES = ("task", "seed", "copies", *COLUMNS[2:])
TRAINED = ("task", "seed", "heads", "accuracy", "one_less", "method", *COLUMNS[4:])
HEADS = {"previous token": [(0, 1)], "bracket depth": [(0, 3)]}
STEPS = {"previous token": 300, "bracket depth": 500}


def unrelated(pairs: Pairs) -> Pairs:
    """Return the same clean texts, each with another clean text in the place of its twin."""
    for by in range(1, len(pairs.clean)):
        other = pairs.answer.roll(by)
        if (differ := pairs.answer != other).sum() >= len(pairs.answer) // 3:
            return Pairs(*(x[differ] for x in (pairs.clean, pairs.clean.roll(by, 0), pairs.answer, other)))
    raise ValueError("all texts have the same answer")


def by_attention(planted: Planted, pairs: Pairs) -> set:
    """Return the heads of which an attention score, other than of rest, is large."""
    scores = head_scores(planted.model, pairs.clean)
    named = [scores[name].nan_to_num() for name in ("previous token", "induction", "same token")]
    return {head for head in all_heads(planted.model) if max(score[head].item() for score in named) >= LOOKS}


def by_direct_effect(planted: Planted, pairs: Pairs) -> set:
    """Return the heads that write a share of the difference between both texts straight to the logits."""
    parts = [
        logit_contributions(planted.model, x, pairs.answer, pairs.other_answer)
        for x in (pairs.clean, pairs.corrupted)
    ]
    change = {name: (parts[0][name] - parts[1][name]).mean().item() for name in parts[0]}
    return {
        (i, h)
        for i, h in all_heads(planted.model)
        if abs(change[f"head {i}.{h}"]) >= THRESHOLD * sum(change.values())
    }


def at_random(planted: Planted, seed: int) -> set:
    """Return as many random heads as there are true ones."""
    heads, generator = all_heads(planted.model), torch.Generator().manual_seed(seed)
    return {heads[i] for i in torch.randperm(len(heads), generator=generator)[: len(planted.heads)].tolist()}


def methods(planted: Planted, pairs: Pairs, seed: int) -> dict[str, set]:
    """Return what each method finds."""
    model, far = planted.model, unrelated(pairs)
    near_by, far_by = ((x.clean, x.corrupted, x.metric) for x in (pairs, far))
    found = {
        kind: find_circuit(model, *near_by, kind=kind) for kind in ("corrupt", "restore", "mean", "zero")
    }
    found |= {
        f"{kind}, unrelated texts": find_circuit(model, *far_by, kind=kind) for kind in ("corrupt", "restore")
    }
    found |= {"prune": prune_circuit(model, *near_by), "attention": by_attention(planted, pairs)}
    return found | {
        "direct effect": by_direct_effect(planted, pairs),
        "random heads": at_random(planted, seed),
    }


def scored(planted: Planted, pairs: Pairs, found: dict[str, set]) -> list[dict]:
    """Return a row for each method."""
    texts, rows = (pairs.clean, pairs.corrupted, pairs.metric), []
    told = lambda heads: " ".join(f"{layer}.{head}" for layer, head in sorted(heads))  # noqa: E731
    known: dict[frozenset, dict] = {}
    for method, heads in found.items():
        if (key := frozenset(heads)) not in known:
            shares = [faithfulness(planted.model, *texts, heads, kind) for kind in ("corrupt", "mean")]
            known[key] = dict(zip(("faithful", "faithful_mean"), shares, strict=True))
        row = dict(method=method, true=told(planted.heads), found=told(heads))
        rows.append(row | compare_circuits(heads, planted.heads) | known[key])
    return rows


def measure_found(task: str, seed: int) -> list[dict]:
    """Return the rows of one planted model."""
    planted = plant(task, seed)
    pairs = planted.texts(TEXTS, seed=100 + seed)
    rows = scored(planted, pairs, methods(planted, pairs, seed))
    return [dict(task=task, seed=seed) | row for row in rows]


def measure_copies(task: str, seed: int) -> list[dict]:
    """Return the rows of models with two and three copies of the last head."""
    rows = []
    for copies in (2, 3):
        planted = plant(task, seed, copies)
        pairs = planted.texts(TEXTS, seed=100 + seed)
        texts = planted.model, pairs.clean, pairs.corrupted, pairs.metric
        found = {kind: find_circuit(*texts, kind=kind) for kind in ("corrupt", "mean")}
        found |= {
            "mean, pairs": find_circuit(*texts, kind="mean", pairs=True),
            "mean, prune": prune_circuit(*texts, kind="mean"),
        }
        rows += [dict(task=task, seed=seed, copies=copies) | row for row in scored(planted, pairs, found)]
    return rows


@torch.no_grad()
def accuracy(planted: Planted) -> float:
    """Return the share of new texts whose answer is the likeliest token."""
    pairs = planted.texts(500, seed=1000)
    return (planted.model(pairs.clean)[:, -1].argmax(1) == pairs.answer).double().mean().item()


def measure_trained(task: str, seed: int) -> list[dict]:
    """Return the rows of one trained circuit; `one_less` is the best accuracy of a training with a head less."""
    heads = HEADS[task]
    planted = train_planted(task, heads, seed, STEPS[task])
    less = [train_planted(task, [h for h in heads if h != gone], seed, STEPS[task]) for gone in heads]
    pairs = planted.texts(TEXTS, seed=100 + seed)
    told = dict(task=task, seed=seed, heads=" ".join(f"{layer}.{head}" for layer, head in heads))
    told |= dict(accuracy=accuracy(planted), one_less=max(accuracy(one) for one in less))
    found = methods(planted, pairs, seed)
    return [told | {k: v for k, v in row.items() if k != "true"} for row in scored(planted, pairs, found)]


def complete(name: str, columns: tuple[str, ...], measure, tasks, seeds: list[int]) -> None:
    """Measure what a table lacks, and write it after each model."""
    path = FOLDER / name
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    there = {(row["task"], int(row["seed"])) for row in rows}
    for task, seed in ((task, seed) for task in tasks for seed in seeds if (task, seed) not in there):
        new = measure(task, seed)
        rows += [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in new]
        for row in new:
            print(name, *row.values(), flush=True)
        with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def main() -> None:
    """Read the command line and complete the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("found", "copies", "trained"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    tables = {
        "found": (COLUMNS, measure_found, TASKS),
        "copies": (COPIES, measure_copies, ("previous token", "induction", "indirect object")),
        "trained": (TRAINED, measure_trained, HEADS),
    }
    for name, (columns, measure, tasks) in tables.items():
        if arguments.only in (None, name):
            complete(f"{name}.csv", columns, measure, tasks, arguments.seeds)


if __name__ == "__main__":
    main()
