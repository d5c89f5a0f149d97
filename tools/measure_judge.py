"""Fine-tune MiniLM as a judge of film reviews, for chapter 5a: data/judge.

    python tools/measure_judge.py            # what is missing: a part a seed, and the frozen features
    python tools/measure_judge.py 1234       # one part, in a process of its own

The loop of the chapter, 200 steps of 16 reviews, three seeds; and a linear probe on frozen features of
the same 3,200 reviews. One thread; about 10 minutes of processor time without bfloat16 in hardware.
"""

import csv
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from llmcourse.data.batches import batches_by_length, pad_right
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.sources.reviews import load_reviews, split_by_movie
from llmcourse.finetune.classify import encoder_features, linear_probe
from llmcourse.runtime import fast_dtype
from llmcourse.support.files import atomic_write
from llmcourse.teach.chapters.ch05a_transformers.judge import N_REVIEWS, SEEDS, STEPS

FOLDER = Path(__file__).resolve().parents[1] / "data" / "judge"
PARTS = Path(__file__).resolve().parents[1] / "runs" / "judge"
LAYER = 4  # of the frozen features: the winner of an earlier cross-validation


def reviews():
    """Return the training reviews, drawn as in the chapter with its seed, and the test reviews."""
    train, _, test = split_by_movie(load_reviews())
    chosen = random.Random(SEEDS[0]).sample(range(len(train)), N_REVIEWS)
    return [train[i] for i in chosen], test


def token_rows(tokenizer, some) -> list[list[int]]:
    """Return the token ids of reviews, at most 48 each."""
    return tokenizer([review.text for review in some], truncation=True, max_length=48)["input_ids"]


def train_judge(seed: int, steps: int = STEPS):
    """Return the tokenizer, the model after the first `steps` of its run, and the loss of each step."""
    train, _ = reviews()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_name())
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder_name(quiet=True))
    model.base_model.embeddings.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, STEPS // 10, STEPS)
    rows, labels = token_rows(tokenizer, train), torch.tensor([review.label for review in train])
    losses = []
    model.train()
    for batch in batches_by_length([len(row) for row in rows], 16, seed=seed)[:steps]:
        ids, mask = pad_right([rows[i] for i in batch])
        with autocast():
            loss = model(ids, attention_mask=mask, labels=labels[batch]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(len(losses), f"{losses[-1]:.3f}", flush=True)
    return tokenizer, model.eval(), losses


def autocast():
    """Return a context in which matrix products have the precision that this processor is quick in."""
    return torch.autocast("cpu", fast_dtype(), enabled=fast_dtype() != torch.float32)


def fine_tune(seed: int) -> dict:
    """Return the loss of each step, and p(fresh) of each test review."""
    tokenizer, model, losses = train_judge(seed)
    _, test = reviews()
    rows, p = token_rows(tokenizer, test), np.zeros(len(test))
    for batch in batches_by_length([len(row) for row in rows], 64):
        ids, mask = pad_right([rows[i] for i in batch])
        with torch.no_grad(), autocast():
            p[batch] = model(ids, attention_mask=mask).logits.float().softmax(-1)[:, 1].numpy()
    return {"losses": losses, "p": p.tolist()}


def frozen() -> dict:
    """Return p(fresh) of each test review by a linear probe on frozen features."""
    train, test = reviews()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_name(quiet=True))
    encoder = transformers.AutoModel.from_pretrained(encoder_name(quiet=True)).eval()
    encoder.encoder.layer = encoder.encoder.layer[:LAYER]
    x_train, x_test = (
        encoder_features(encoder, tokenizer, [review.text for review in part], dtype=fast_dtype())[:, LAYER]
        for part in (train, test)
    )
    probe = linear_probe(x_train, [review.label for review in train])
    return {"losses": [], "p": probe.predict_proba(x_test.numpy())[:, 1].tolist()}


def write_tables() -> None:
    """Write data/judge from the parts."""
    parts = {name: json.loads((PARTS / f"{name}.json").read_text("utf-8")) for name in ("frozen", *SEEDS)}
    names = ["frozen", *(f"fine-tuned (seed {seed})" for seed in SEEDS)]
    labels = [review.label for review in reviews()[1]]
    with (
        atomic_write(FOLDER / "test.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", *names])
        for i, label in enumerate(labels):
            writer.writerow([label, *(f"{part['p'][i]:.4f}" for part in parts.values())])
    with (
        atomic_write(FOLDER / "losses.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "step", "loss"])
        for seed in SEEDS:
            rows = enumerate(parts[seed]["losses"], start=1)
            writer.writerows((seed, step, f"{loss:.4f}") for step, loss in rows)


def main() -> None:
    """Run the parts that are asked for, or those that are missing; write the tables when all are there."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = sys.argv[1:] or [str(part) for part in ("frozen", *SEEDS)]
    for part in asked:
        path = PARTS / f"{part}.json"
        if not path.exists():
            found = frozen() if part == "frozen" else fine_tune(int(part))
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found), encoding="utf-8")
    if all((PARTS / f"{part}.json").exists() for part in ("frozen", *SEEDS)):
        write_tables()


if __name__ == "__main__":
    main()
