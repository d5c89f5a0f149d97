"""Measure what chapter 3c's run reaches in 2,000 steps, which nobody should wait for: data/longer_run/runs.csv.

    python tools/measure_longer_run.py --seeds 1 2 3

The cell `training` of the notebook, with more steps and nothing else changed, on one thread; about 70
seconds of processor time a seed. Seeds that are in the file already are kept.
"""

import argparse
import csv
import multiprocessing
from pathlib import Path

import torch

from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import muon_and_adamw
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import fast_dtype
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.training import train

PATH = Path(__file__).resolve().parents[1] / "data" / "longer_run" / "runs.csv"
COLUMNS = ("seed", "step", "validation_loss", "bits_per_byte")  # of 20,000 tokens; at the end, of all
STEPS, EVERY = 2000, 100


def measure(seed: int) -> list[dict]:
    """Return a row for each evaluation; the last has the bits per byte of the whole validation text."""
    torch.set_num_threads(1)
    tokenizer = load_course_model("pretrained")[1]
    end_id = tokenizer.special_tokens["<|endoftext|>"]
    texts = [[play.text for play in part] for part in split_by_title(load_plays())]
    train_ids, ids = (pack([tokenizer.encode(text) for text in part], end_id) for part in texts[:2])
    n_bytes = sum(len(text.encode()) for text in texts[1])
    torch.manual_seed(seed)
    model = GPT(ModelConfig(tokenizer.vocab_size, context_length=64, d_model=128, n_heads=4, n_layers=2))
    batches = TokenBatches(train_ids, batch_size=8, context_length=64, seed=seed)
    optimizer = muon_and_adamw(model, muon_lr=0.01, adamw_lr=4e-3, betas=(0.9, 0.99), weight_decay=0.1)
    how = dict(optimizer=optimizer, schedule=warmup_linear(STEPS), dtype=fast_dtype())
    how |= dict(evaluate=lambda m: evaluate_loss(m, ids[:20_000]), eval_every=EVERY)
    rows = []
    for step in train(model, batches, steps=STEPS, **how):
        if step.validation_loss:
            rows.append(dict(seed=seed, step=step.step, validation_loss=f"{step.validation_loss:.4f}"))
            print(rows[-1], flush=True)
    bits = bits_per_byte(evaluate_loss(model, ids), len(ids) - 1, n_bytes)
    return [*rows[:-1], rows[-1] | dict(bits_per_byte=f"{bits:.4f}")]


def write(rows: list[dict]) -> None:
    """Write all rows, in the order of seeds and steps."""
    rows.sort(key=lambda row: (int(row["seed"]), int(row["step"])))
    with atomic_write(PATH) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Read the command line, run the seeds that are missing, one a core, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    rows = list(csv.DictReader(PATH.open(encoding="utf-8"))) if PATH.exists() else []
    missing = sorted(set(seeds) - {int(row["seed"]) for row in rows})
    with multiprocessing.Pool() as pool:
        for new in pool.imap(measure, missing):
            rows += new
            write(rows)


if __name__ == "__main__":
    main()
