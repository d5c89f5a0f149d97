"""Measure which learning rate serves each architecture of chapter 3a, over seeds: data/race/runs.csv.

    python tools/measure_race.py

The notebook's cell `comparison`, for each of three architectures, two rates and three seeds; on one
thread some 6 seconds of processor time a run. Runs that are in the file already are kept.
"""

import csv
import itertools
from pathlib import Path

import torch

from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_course_model
from llmcourse.schedules import warmup_cosine
from llmcourse.support.files import atomic_write
from llmcourse.training import train

PATH = Path(__file__).resolve().parents[1] / "data" / "race" / "runs.csv"
COLUMNS = ("seed", "architecture", "rate", "validation_loss")
SIZE = dict(vocab_size=2048, context_length=64, d_model=96, n_heads=4, n_layers=3, tied_embeddings=True)
ARCHITECTURES = {
    "Transformer 2017": ModelConfig.transformer_2017,
    "GPT-2": ModelConfig.gpt2,
    "Llama": ModelConfig.llama,
}
RATES, SEEDS, STEPS = (2e-3, 4e-3), (1, 2, 3), 300


def token_rows():
    """Return the training and the validation tokens of the plays."""
    tokenizer = load_course_model("pretrained")[1]
    end_id = tokenizer.special_tokens["<|endoftext|>"]
    parts = split_by_title(load_plays())[:2]
    return tuple(pack([tokenizer.encode(play.text) for play in part], end_id) for part in parts)


def measure(architecture: str, rate: float, seed: int, tokens, steps: int = STEPS) -> float:
    """Return the loss on the first 20,000 validation tokens after `steps` steps, in nats per token."""
    train_ids, validation_ids = tokens
    torch.manual_seed(seed)
    model = GPT(ARCHITECTURES[architecture](**SIZE))
    batches = TokenBatches(train_ids, batch_size=4, context_length=64, seed=seed)
    schedule = warmup_cosine(steps, warmup_steps=steps // 8, final_factor=0.05)
    for _ in train(model, batches, steps=steps, lr=rate, schedule=schedule):
        pass  # only the end counts
    return evaluate_loss(model, validation_ids[:20_000])


def write(rows: list[dict]) -> None:
    """Write all rows: a seed after the other, its architectures in order, their rates rising."""
    names = list(ARCHITECTURES)
    rows.sort(key=lambda row: (int(row["seed"]), names.index(row["architecture"]), float(row["rate"])))
    PATH.parent.mkdir(exist_ok=True)
    with atomic_write(PATH) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Make the runs that are missing, and write after each."""
    torch.set_num_threads(1)
    rows = list(csv.DictReader(PATH.open(encoding="utf-8"))) if PATH.exists() else []
    done = {(row["architecture"], float(row["rate"]), int(row["seed"])) for row in rows}
    tokens = token_rows()
    for rate, seed, name in itertools.product(RATES, SEEDS, ARCHITECTURES):
        if (name, rate, seed) not in done:
            loss = measure(name, rate, seed, tokens)
            rows.append(dict(seed=seed, architecture=name, rate=f"{rate:g}", validation_loss=f"{loss:.4f}"))
            write(rows)
            print(name, rate, seed, f"{loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
