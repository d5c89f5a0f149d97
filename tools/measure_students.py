"""Measure what a teacher is worth to a small student, and what pruning costs: data/compression.

    python tools/measure_students.py            # students.csv, pruning.csv and pruned_files.csv
    python tools/measure_students.py --summary  # the paired differences over seeds, with intervals

Students of the course model "pretrained" with and without their teacher, with equal steps and with
equal time; the course model pruned, with and without further training, and with the same training
unpruned. Rows that are in the files already are kept. One thread; seconds are those of the processor,
spent on training. About 30 minutes of them.
"""

import argparse
import copy
import csv
import math
import statistics
import tempfile
import time
from functools import cache, partial
from pathlib import Path

import torch
from build_checkpoints import STUDENT

from llmcourse.compress.distill import distillation_loss, divergences
from llmcourse.compress.prune import apply_masks, keep_masks, magnitude_masks, two_of_four_masks
from llmcourse.compress.sparse_file import file_sizes
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import muon_and_adamw
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import fast_dtype
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER, KEPT = ROOT / "data" / "compression", ROOT / "runs" / "students"
COLUMNS = ("method", "scheme", "seed", "steps", "bytes", "held_out", "training", "kl", "seconds")
STEPS, MORE = 300, 100  # of a student from scratch; after it, with or without a teacher
EQUAL = 800  # steps without a teacher that take as long as STEPS with one
RECOVERY = 40  # steps after pruning
TRAINING_TOKENS, KL_TOKENS = 20_000, 10_241


@cache
def texts() -> tuple[list[torch.Tensor], int]:
    """Return the token ids of training, validation and test, and the bytes of the training and the validation text."""
    tokenizer = load_course_model("pretrained")[1]
    end_id = tokenizer.special_tokens["<|endoftext|>"]
    parts = [[play.text for play in part] for part in split_by_title(load_plays(quiet=True))]
    rows = [pack([tokenizer.encode(text) for text in part], end_id) for part in parts]
    held_out = sum(len(text.encode()) for text in parts[1])
    return rows, (len(tokenizer.decode_bytes(rows[0][:TRAINING_TOKENS].tolist())), held_out)


@cache
def teacher() -> GPT:
    """Return the course model."""
    return load_course_model("pretrained")[0]


def train_here(model: GPT, steps: int, seed: int, rates, loss=next_token_loss) -> float:
    """Train `model` in place; return seconds of the processor."""
    began, dtype = time.process_time(), fast_dtype()
    batches = TokenBatches(texts()[0][0], 8, model.config.context_length, seed=seed)
    optimizer = muon_and_adamw(model, *rates, weight_decay=0.1, dtype=dtype)
    how = dict(steps=steps, optimizer=optimizer, schedule=warmup_linear(steps), dtype=dtype, loss=loss)
    for _ in train(model, batches, **how):
        pass
    model.eval()
    return time.process_time() - began


# ---- what is measured of a model ------------------------------------------------------------------


def training_bits(model: GPT) -> float:
    """Return the bits per byte of the beginning of the training text."""
    (train_ids, *_), (n_bytes, _) = texts()
    return bits_per_byte(
        evaluate_loss(model, train_ids[:TRAINING_TOKENS], batch_size=8), TRAINING_TOKENS - 1, n_bytes
    )


def held_out_bits(model: GPT) -> float:
    """Return the bits per byte of the validation text."""
    (_, ids, _), (_, n_bytes) = texts()
    return bits_per_byte(evaluate_loss(model, ids, batch_size=8), len(ids) - 1, n_bytes)


@torch.no_grad()
def windows_logits(model: GPT):
    """Yield logits (8·T, V) of the first KL_TOKENS validation tokens, window by window."""
    rows = texts()[0][1][: KL_TOKENS - 1].view(-1, model.config.context_length)
    for group in rows.split(8):
        yield model.eval()(group).flatten(0, 1)


@cache
def teacher_logits() -> list[torch.Tensor]:
    """Return what `windows_logits` yields for the course model."""
    return list(windows_logits(teacher()))


def divergence(model: GPT) -> float:
    """Return KL(course model ‖ model) in nats per token of held-out text."""
    pairs = zip(windows_logits(model), teacher_logits(), strict=True)
    return torch.cat([divergences(mine, theirs) for mine, theirs in pairs]).mean().item()


def measured(model: GPT, n_bytes: int | None = None) -> dict:
    """Return the measured columns of a row; `n_bytes` are those of the file, if it is not the plain one."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = file_sizes(model, folder)
    scores = held_out_bits(model), training_bits(model), divergence(model)
    scores = (f"{score:.4f}" for score in scores)
    return dict(zip(COLUMNS[4:8], (n_bytes or sizes["plain"], *scores), strict=True))


# ---- students -------------------------------------------------------------------------------------


def new_student(seed: int) -> GPT:
    """Return a student with its random start."""
    torch.manual_seed(seed)
    return GPT(ModelConfig(teacher().config.vocab_size, **STUDENT))


def student(seed: int, steps: int, loss=next_token_loss) -> tuple[GPT, float]:
    """Return a student trained from its random start, and the seconds."""
    model = new_student(seed)
    return model, train_here(model, steps, seed, (0.02, 8e-3), loss)


def scratch(seed: int) -> tuple[GPT, float]:
    """Return the student without a teacher; kept in runs/, since others go on from it."""
    path = KEPT / f"scratch-{seed}.pt"
    if path.exists():
        model, content = new_student(seed), torch.load(path, weights_only=True)
        model.load_state_dict(content["model"])
        return model.eval(), content["seconds"]
    model, seconds = student(seed, STEPS)
    with atomic_write(path) as temporary:
        torch.save({"model": model.state_dict(), "seconds": seconds}, temporary)
    return model, seconds


def continued(seed: int, loss) -> tuple[GPT, float]:
    """Return the student without a teacher after MORE steps with another loss, and the seconds of both."""
    model, seconds = scratch(seed)
    return model, seconds + train_here(model, MORE, seed + 1000, (0.01, 4e-3), loss)


def soft(**options):
    """Return the loss with the course model as teacher."""
    return distillation_loss(teacher(), **options)


def student_runs(seed: int) -> dict[tuple, object]:
    """Return how each student of a seed is made: by its method, scheme, seed and steps."""
    runs = {
        ("scratch", "no teacher", STEPS): partial(scratch, seed),
        ("distilled", "T=2", STEPS): lambda: student(seed, STEPS, soft(temperature=2.0)),
        ("scratch", "no teacher", EQUAL): lambda: student(seed, EQUAL),
        ("continued", "no teacher", STEPS + MORE): lambda: continued(seed, next_token_loss),
        ("continued", "T=2", STEPS + MORE): lambda: continued(seed, soft(temperature=2.0)),
    }
    return {(method, scheme, seed, steps): make for (method, scheme, steps), make in runs.items()}


def temperature_runs(seed: int) -> dict[tuple, object]:
    """Return how students with other temperatures are made."""
    return {
        ("distilled", "T=1", seed, STEPS): lambda: student(seed, STEPS, soft(temperature=1.0)),
        ("distilled", "T=4", seed, STEPS): lambda: student(seed, STEPS, soft(temperature=4.0)),
    }


def weak_runs(seed: int) -> dict[tuple, object]:
    """Return how a student is made whose teacher is the student of another seed."""
    key = "distilled, weak teacher", "T=2", seed, STEPS
    return {key: lambda: student(seed, STEPS, distillation_loss(scratch(seed % 3 + 1)[0]))}


# ---- pruning --------------------------------------------------------------------------------------

MASKS = {
    **{f"{share:.0%}": partial(magnitude_masks, share=share) for share in (0.2, 0.4, 0.5, 0.6, 0.8)},
    "2:4": two_of_four_masks,
}
GLOBAL = {
    f"{share:.0%}, all matrices together": partial(magnitude_masks, share=share, scope="global")
    for share in (0.5, 0.8)
}


def pruned(scheme: str) -> tuple[GPT, float]:
    """Return the course model pruned and not trained."""
    model = copy.deepcopy(teacher())
    apply_masks(model, (MASKS | GLOBAL)[scheme](model))
    return model, 0.0


def recovered(scheme: str | None, seed: int) -> tuple[GPT, float]:
    """Return the course model after RECOVERY further steps, with masks that hold, or unpruned."""
    model = copy.deepcopy(teacher())
    torch.manual_seed(seed)
    masks = MASKS[scheme](model) if scheme else {}
    with keep_masks(model, masks):
        seconds = train_here(model, RECOVERY, seed, (2e-3, 8e-4))
    return model, seconds


def one_shot_runs() -> dict[tuple, object]:
    """Return how each model is made that is pruned and not trained."""
    return {("pruned", scheme, 0, 0): partial(pruned, scheme) for scheme in MASKS | GLOBAL}


def recovery_runs(seed: int) -> dict[tuple, object]:
    """Return how each model of a seed is made that is trained further, pruned or not."""
    runs = {("trained", "not pruned", seed, RECOVERY): partial(recovered, None, seed)}
    return runs | {
        ("pruned, trained", scheme, seed, RECOVERY): partial(recovered, scheme, seed)
        for scheme in sorted(MASKS, reverse=True)
    }


# ---- files ----------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    """Return the rows of a table, none if it is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict], columns=COLUMNS) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def key_of(row: dict) -> tuple:
    """Return what names a run."""
    return row["method"], row["scheme"], int(row["seed"]), int(row["steps"])


def fill(name: str, runs: dict[tuple, object]) -> None:
    """Make the runs that the table `name` lacks, and write each when it is done."""
    path = FOLDER / name
    rows = read(path)
    for key in [key for key in runs if key not in {key_of(row) for row in rows}]:
        model, seconds = runs[key]()
        n_bytes = None
        if name == "pruning.csv" and key[0] != "trained":
            with tempfile.TemporaryDirectory() as folder:
                n_bytes = file_sizes(model, folder)["sparse"]
        row = (
            dict(zip(COLUMNS, key, strict=False)) | measured(model, n_bytes) | dict(seconds=f"{seconds:.1f}")
        )
        rows.append(row)
        write(path, rows)
        print(*row.values(), flush=True)


def write_sizes() -> None:
    """Write pruned_files.csv: the bytes of the course model, pruned, in three kinds of files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(dict(scheme="not pruned") | file_sizes(teacher(), folder))
        for scheme in MASKS:
            rows.append(dict(scheme=scheme) | file_sizes(pruned(scheme)[0], folder))
    write(FOLDER / "pruned_files.csv", rows, ("scheme", "plain", "zlib", "sparse"))


# ---- differences ----------------------------------------------------------------------------------

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided, for so many seeds
PAIRS = [  # (one, other): a difference below 0 says that the first is better
    ("students.csv", ("distilled", "T=2", STEPS), ("scratch", "no teacher", STEPS)),
    ("students.csv", ("distilled", "T=2", STEPS), ("scratch", "no teacher", EQUAL)),
    ("students.csv", ("continued", "T=2", STEPS + MORE), ("continued", "no teacher", STEPS + MORE)),
    *(
        ("students.csv", (*which, STEPS), ("scratch", "no teacher", STEPS))
        for which in (("distilled", "T=1"), ("distilled", "T=4"), ("distilled, weak teacher", "T=2"))
    ),
    *(
        ("pruning.csv", ("pruned, trained", scheme, RECOVERY), ("trained", "not pruned", RECOVERY))
        for scheme in MASKS
    ),
]


def difference(rows: list[dict], one: tuple, other: tuple, column: str) -> tuple[float, float, int]:
    """Return the mean over seeds of one run's score less another's, half its 95 % interval, and the seeds."""
    scores = [
        {int(row["seed"]): float(row[column]) for row in rows if (*key_of(row)[:2], key_of(row)[3]) == which}
        for which in (one, other)
    ]
    seeds = sorted(scores[0].keys() & scores[1].keys())
    found = [scores[0][seed] - scores[1][seed] for seed in seeds]
    half = T_95[len(found)] * statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return statistics.mean(found) if found else math.nan, half, len(found)


def print_summary() -> None:
    """Print each difference, in bits per byte and nats per token."""
    for name, one, other in PAIRS:
        rows = read(FOLDER / name)
        print(f"{' '.join(map(str, one))} - {' '.join(map(str, other))}")
        for column in ("held_out", "training", "kl"):
            mean, half, n = difference(rows, one, other, column)
            print(f"    {column:9} {mean:+.4f} +- {half:.4f} ({n} seeds)")


def main() -> None:
    """Read the command line, and make the runs that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.summary:
        return print_summary()
    torch.set_num_threads(1)
    if not (FOLDER / "pruned_files.csv").exists():
        write_sizes()
    fill("pruning.csv", one_shot_runs())
    for name, runs in (
        ("students.csv", student_runs),
        ("pruning.csv", recovery_runs),
        ("students.csv", temperature_runs),
        ("students.csv", weak_runs),
    ):
        for seed in arguments.seeds:
            fill(name, runs(seed))
    print_summary()


if __name__ == "__main__":
    main()
