"""Measure `diagnose` on held-out seeds: who is named what. Writes data/diagnose/.

    OMP_WAIT_POLICY=PASSIVE python tools/measure_diagnose.py            # about 5 minutes of CPU
    python tools/measure_diagnose.py --seeds 2 --dry                    # a look

Thresholds were set on seeds 0-9; seeds here begin at 100, and every other one runs on 2 threads.
A case is a bug, a milder form of one, the healthy run, or a healthy variant.
"""

import argparse
import csv
import platform
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from llmcourse.data.batches import TokenBatches
from llmcourse.monitor import planted_bugs, small_run
from llmcourse.monitor.diagnose import diagnose
from llmcourse.schedules import warmup_cosine
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "diagnose"
HEALTHY = "healthy"


def momentum(setup: small_run.Setup) -> None:
    """SGD with momentum at a sensible rate."""
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=0.3, momentum=0.9)


VARIANTS = {  # healthy, and must raise no alarm
    "half the width": dict(d_model=32),
    "width x 2": dict(d_model=128),
    "two layers": dict(n_layers=2),
    "learning rate x 3": dict(lr=9e-3),
    "learning rate / 3": dict(lr=1e-3),
    "no dropout": dict(dropout=0.0),
    "untied, SwiGLU, RMSNorm": dict(tied_embeddings=False, mlp="swiglu"),
    "GPT-2 with ReLU": dict(norm="layer", positions="learned", mlp="relu", bias=True),
    "three times as long": dict(steps=480),
}


def decay(setup: small_run.Setup, strength: float) -> None:
    """Weight decay of `strength` on everything."""
    for group in setup.optimizer.param_groups:
        group["weight_decay"] = strength


def few(setup: small_run.Setup, n_characters: int) -> None:
    """Only so many characters to train on."""
    setup.batches = TokenBatches(setup.train_ids[:n_characters], 8, 64, setup.seed)


MILDER = {  # truth: (case, bug)
    "learning rate too high": ("learning rate x 30", partial(planted_bugs.learning_rate_too_high, factor=30)),
    "learning rate too low": (
        "learning rate / 30",
        partial(planted_bugs.learning_rate_too_high, factor=1 / 30),
    ),
    "float16 underflow": ("batch of 250,000 tokens", partial(planted_bugs.underflow, n_tokens=250_000)),
    "weight decay too strong": ("decay 3", partial(decay, strength=3.0)),
    "too little text": ("6,000 characters", partial(few, n_characters=6000)),
}


# Bugs for which no rule was written. What they are called is open; whether anything is seen is not.


def no_positions(setup: small_run.Setup) -> None:
    """The model cannot tell places apart, but for the mask."""
    forward = setup.model.embed
    setup.model.embed = lambda *inputs: (forward(*inputs)[0], None)


def two_places_ahead(setup: small_run.Setup) -> None:
    """The target is the token after the next one."""
    batches = setup.batches
    setup.batches = ((inputs[:, :-1], targets[:, 1:]) for inputs, targets in batches)


def noisy_targets(setup: small_run.Setup) -> None:
    """Three targets of ten are drawn at random."""
    batches, vocab_size = setup.batches, setup.model.config.vocab_size

    def noisy():
        for inputs, targets in batches:
            noise = torch.randint(vocab_size, targets.shape)
            yield inputs, torch.where(torch.rand(targets.shape) < 0.3, noise, targets)

    setup.batches = noisy()


def rate_gone(setup: small_run.Setup) -> None:
    """The schedule counts 40 steps and not 160: the learning rate is 0 from there on."""
    schedule = warmup_cosine(40, warmup_steps=10)
    setup.options["schedule"] = schedule


def contaminated(setup: small_run.Setup) -> None:
    """The training text is the validation text."""
    setup.batches = TokenBatches(setup.validation_ids, 8, 64, setup.seed)


UNKNOWN = {
    "no positions": no_positions,
    "targets two places ahead": two_places_ahead,
    "30 % random targets": noisy_targets,
    "learning rate 0 after step 40": rate_gone,
    "trained on the validation text": contaminated,
}


def cases(n: int):
    """Yield (group, case, truth, bug, changes, seeds)."""
    yield "healthy", "the healthy run", HEALTHY, None, {}, range(100, 100 + 12 * n)
    for name, changes in VARIANTS.items():
        yield "healthy variant", name, HEALTHY, None, changes, range(200, 200 + n)
    yield "healthy variant", "SGD with momentum", HEALTHY, momentum, {}, range(200, 200 + n)
    for name, bug in planted_bugs.BUGS.items():
        yield "bug", name, name, bug, {}, range(300, 300 + n)
    for name, (case, bug) in MILDER.items():
        yield "milder", case, name, bug, {}, range(400, 400 + n)
    for case, bug in UNKNOWN.items():
        yield "no rule", case, "another bug", bug, {}, range(500, 500 + n)


def is_right(key: tuple) -> bool:
    """Return whether the name is that of the truth; for a bug without a rule, whether there is any name."""
    _, _, _, truth, named = key
    return named != HEALTHY if truth == "another bug" else named == truth


def write(rows: Counter, seconds: float, n: int) -> None:
    """Write the table and its card."""
    with atomic_write(FOLDER / "confusion.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["group", "case", "threads", "truth", "named", "runs"])
        writer.writerows([*key, count] for key, count in rows.items())
    lines = ["| Group | Runs | Right | Share |", "|---|---|---|---|"]
    for group in ("healthy", "healthy variant", "bug", "milder", "no rule"):
        total = sum(c for key, c in rows.items() if key[0] == group)
        right = sum(c for key, c in rows.items() if key[0] == group and is_right(key))
        lines.append(f"| {group} | {total} | {right} | {right / total:.1%} |")
    wrong = [
        f"- {case} ({threads} thread{'s' * (threads > 1)}): {count} named {named!r}"
        for (_, case, threads, truth, named), count in rows.items()
        if truth != named
    ]
    card = f"""# How well `diagnose` names what is wrong

`confusion.csv` counts runs: `truth` is what was done, `named` is the first finding of
`llmcourse.monitor.diagnose.diagnose` ("{HEALTHY}" if there is none). Made by `tools/measure_diagnose.py`.
"no rule" are five bugs that no rule was written for: right means that anything at all is found.

{chr(10).join(lines)}

Named otherwise than the truth:

{chr(10).join(wrong) or "- none"}

| | |
|---|---|
| Seeds | thresholds set on 0-9; measured on {12 * n} from 100 (healthy), {n} from 200 (each variant), 300 (each bug), 400 (each milder form), 500 (each bug without a rule); every other seed on 2 threads |
| Runs | `llmcourse.monitor.small_run`: 160 steps of 8 x 64 characters, 1 layer, width 64 |
| Limits | the bugs were known when the rules were written; a bug of another kind is caught by the two general alarms at best |
| Machine | {platform.machine()}, torch {torch.__version__.split("+")[0]}, {seconds:.0f} s of processor time |
| Licence | Apache-2.0 |
"""
    with atomic_write(FOLDER / "README.md") as path:
        path.write_text(card, encoding="utf-8")
    print(card)


def main() -> None:
    """Read the command line, run, print what was named wrong, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="for each case; for the healthy run 12 times")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    rows, began = Counter(), time.process_time()
    for group, case, truth, bug, changes, seeds in cases(arguments.seeds):
        for seed in seeds:
            threads = 1 + seed % 2
            torch.set_num_threads(threads)
            run = small_run.sick_run(bug or (lambda setup: None), seed, **changes)
            findings = diagnose(run)
            named = findings[0].name if findings else HEALTHY
            rows[group, case, threads, truth, named] += 1
            if named != truth:
                print(
                    f"  WRONG: seed {seed}, {threads} thread(s): {named}", *findings, sep="\n    ", flush=True
                )
        print(f"{group}, {case}: {time.process_time() - began:.0f} s", flush=True)
    if not arguments.dry:
        write(rows, time.process_time() - began, arguments.seeds)


if __name__ == "__main__":
    main()
