"""Train the small model in which induction heads form, and measure it: data/induction/.

    python tools/build_induction.py --seeds 1 2 3

Half of each batch is text of the plays in characters, half are random characters that repeat themselves. Seed 1
keeps checkpoints along the run. Then heads are taken away, those that look like induction, those that look at the
previous token, and as many others. A seed that is stored is not repeated. One thread; about a minute of
processor time a seed.
"""

import argparse
import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from llmcourse.data.batches import TokenBatches
from llmcourse.data.sources.characters import load_characters
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.interpret.ablation import ablate_heads, head_means
from llmcourse.interpret.circuits import all_heads
from llmcourse.interpret.heads import head_scores
from llmcourse.interpret.hooks import hooked
from llmcourse.interpret.induction import (
    RepeatedBatches,
    best_heads,
    copying_losses,
    other_sets,
    rank_heads,
    small_model,
)
from llmcourse.optim import parameter_groups
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.training import train

FOLDER = Path(__file__).resolve().parents[1] / "data" / "induction"
T, BATCH, STEPS, EVERY = 64, 32, 1200, 50
KEPT = (*range(50, 801, 50), 1000, STEPS)  # checkpoints of seed 1
DRAWS = 5  # of as many other heads
SURE = 0.3  # a head with this score is called by the pattern's name
CURVES = ("seed", "step", "text_loss", "first_time", "second_time", "text_first_time", "text_second_time")
CURVES += ("induction_score", "induction_head", "previous_score", "previous_head")
REMOVED = ("seed", "removed", "by", "heads", "second_time", "text_second_time", "text_loss")


class Measures:
    """The texts on which every model of the run is measured; none is a text that it trains on."""

    def __init__(self, text):
        generator = torch.Generator().manual_seed(0)
        self.random = torch.randint(len(text.alphabet), (64, T // 2), generator=generator)
        starts = torch.randint(len(text.tuning) - T, (64,), generator=generator)
        self.passages = text.tuning[starts[:, None] + torch.arange(T // 2)]  # (B, T/2)
        self.validation = text.validation[: 100 * T + 1]

    def __call__(self, model) -> dict:
        """Return the losses in nats per character, and the heads that score highest."""
        first, second = copying_losses(model, self.random)
        text_first, text_second = copying_losses(model, self.passages)
        row = dict(text_loss=evaluate_loss(model, self.validation), first_time=first, second_time=second)
        row |= dict(text_first_time=text_first, text_second_time=text_second)
        for name, short in (("induction", "induction"), ("previous token", "previous")):
            score, (layer, head) = best_heads(model, self.random)[name]
            row |= {f"{short}_score": score, f"{short}_head": f"{layer}.{head}"}
        return row


def run(seed: int, text) -> tuple[list[dict], list[dict], dict]:
    """Train one model; return the rows of its curves and of its removals, and its checkpoints."""
    torch.manual_seed(seed)
    model, measure = small_model(len(text.alphabet), T), Measures(text)
    plays = TokenBatches(text.train, BATCH // 2, T, seed=seed)
    batches = RepeatedBatches(range(len(text.alphabet)), BATCH, T, seed, text=plays)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=3e-3, betas=(0.9, 0.98))
    curves, kept = [dict(seed=seed, step=0, **measure(model))], {0: state_of(model)}
    for step in train(model, batches, steps=STEPS, optimizer=optimizer, schedule=warmup_linear(STEPS)):
        if step.step % EVERY == 0:
            curves.append(dict(seed=seed, step=step.step, **measure(model)))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in curves[-1].items()}, flush=True)
            model.train()
        if step.step in KEPT:
            kept[step.step] = state_of(model)
    return curves, remove(seed, model.eval(), measure), kept


def state_of(model) -> dict:
    """Return the weights in half precision."""
    return {name: tensor.half().clone() for name, tensor in model.state_dict().items()}


def remove(seed: int, model, measure: Measures) -> list[dict]:
    """Return the losses without the heads of each kind, and without as many random others."""
    texts = torch.cat([measure.random.repeat(1, 2), measure.passages.repeat(1, 2)])
    scores, means = head_scores(model, measure.random.repeat(1, 2)), head_means(model, texts)
    chosen = {"none": []} | {name: rank_heads(scores[name], SURE) for name in ("induction", "previous token")}
    named = {head for heads in chosen.values() for head in heads}
    others, generator = (
        [head for head in all_heads(model) if head not in named],
        torch.Generator().manual_seed(seed),
    )
    sets = list(chosen.items())
    for n in sorted({len(heads) for heads in chosen.values() if heads}):
        sets += [(f"{n} others", heads) for heads in other_sets(others, n, DRAWS, generator)]
    rows = []
    for name, heads in sets:
        for by in ("mean", "zero"):
            edits = ablate_heads(heads, by, means if by == "mean" else None)
            with hooked(model, edits):
                row = measure(model)
            told = dict(
                seed=seed, removed=name, by=by, heads=" ".join(f"{layer}.{head}" for layer, head in heads)
            )
            rows.append(told | {column: row[column] for column in REMOVED[4:]})
    return rows


def read(name: str) -> list[dict]:
    """Return the rows of a table that is there."""
    path = FOLDER / name
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def write(name: str, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Write a table, numbers in four digits."""
    rows = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    with atomic_write(FOLDER / name) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_checkpoints(kept: dict, text) -> None:
    """Write all checkpoints into one file."""
    config = asdict(small_model(len(text.alphabet), T).config)
    about = json.dumps(dict(steps=sorted(kept), alphabet=text.alphabet, config=config))
    tensors = {f"{step}.{name}": tensor for step, state in kept.items() for name, tensor in state.items()}
    path = FOLDER / "checkpoints.safetensors"
    with atomic_write(path) as part:
        save_file(tensors, part, {"about": about})
    print(
        f"for the card: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    )


def main() -> None:
    """Run the seeds that are missing, and write after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    text, curves, removed = load_characters(quiet=True), read("runs.csv"), read("removed.csv")
    for seed in sorted(set(seeds) - {int(row["seed"]) for row in curves}):
        new_curves, new_removed, kept = run(seed, text)
        curves, removed = curves + new_curves, removed + new_removed
        if seed == 1:
            write_checkpoints(kept, text)
        write("runs.csv", CURVES, curves)
        write("removed.csv", REMOVED, removed)


if __name__ == "__main__":
    main()
