"""Measure what rewards teach, and what else they do, for chapter 8d: data/alignment.

    python tools/measure_alignment.py              # all runs; resumes where it stopped
    python tools/measure_alignment.py reverse      # those of one experiment
    python tools/measure_alignment.py --summary    # the tables, from what is stored

Experiments: `reverse` (six letters, five seeds: GRPO and its controls), `hacking` (a reward that misses
what is meant), `collapse` (a rate that is too high), `rates` (GRPO at the rate of the first control, and
that control at the rate of GRPO), `sum` (two digits), `variants` (scale, KL).
A seed draws the start, which is trained on right answers until it is a third right, then the tasks and
the answers. One thread; seconds are the processor's, for training, without evaluation.
"""

import argparse
import copy
import csv
import random
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from llmcourse.evaluate.seeds import Difference, paired, select
from llmcourse.finetune.policy import policy_loss
from llmcourse.finetune.rollouts import RolloutBatches, divergence, merge_equal
from llmcourse.finetune.sft import ChatBatches
from llmcourse.finetune.verifiable import (
    ALPHABET,
    CHARACTERS,
    accuracy,
    correct,
    exact_reward,
    letters_reward,
    pass_at,
    string_tasks,
    worked,
)
from llmcourse.model import GPT, ModelConfig
from llmcourse.schedules import constant, warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "data" / "alignment"
CONFIG = dict(context_length=16, d_model=64, n_heads=4, n_layers=2)
KNOWN, UNSEEN, WATCHED = 20_000, 500, 200  # tasks to train on, to be tested on, and to be watched on
EVERY = 10  # steps between two rows of a curve
KEY = ("experiment", "method", "lr", "seed")
RUN = (*KEY, "steps", "answers", "tokens", "seconds", "start_greedy", "start_sampled", "start_pass8")
RUN += ("greedy", "sampled", "pass8", "reward", "kl", "length", "right")
CURVE = (*KEY, "step", "reward", "exact", "length", "kl", "greedy", "sampled", "seconds")


class Method(NamedTuple):
    """A way to go on from a start; the defaults are GRPO without ornaments."""

    name: str
    lr: float = 5e-4
    steps: int = 200
    n_tasks: int = 64
    group: int = 8
    reward: str = "exact"
    own: bool = False  # answers of the start, all of them taken as right
    scale: bool = False
    kl: float = 0.0
    decay: bool = True


GRPO, RANDOM, OWN = (
    Method("GRPO"),
    Method("random rewards", reward="random"),
    Method("its own answers", own=True),
)
SLOW, SLOWER = 1e-4, 3e-5  # rates at which random rewards do less harm
SHORT = dict(steps=100, n_tasks=32)
EXPERIMENTS = {  # name -> (kind of task, share of right answers at the start, seeds, methods)
    "reverse": ("reverse", 0.35, 5, [GRPO, RANDOM._replace(lr=SLOW), OWN]),
    "hacking": (
        "reverse",
        0.35,
        3,
        [
            Method("letters anywhere", reward="letters", **SHORT),
            Method("letters anywhere, KL 0.2", reward="letters", kl=0.2, **SHORT),
            Method("exact", **SHORT),
        ],
    ),
    "collapse": (
        "reverse",
        0.35,
        3,
        [
            Method("rate 2e-3, constant", 2e-3, decay=False, **SHORT),
            Method("rate 2e-3, constant, KL 0.2", 2e-3, decay=False, kl=0.2, **SHORT),
            Method("rate 5e-4, constant", 5e-4, decay=False, **SHORT),
        ],
    ),
    "rates": (
        "reverse",
        0.35,
        5,
        [RANDOM, GRPO._replace(lr=SLOW), GRPO._replace(lr=SLOWER), RANDOM._replace(lr=SLOWER)],
    ),
    "sum": ("sum", 0.4, 3, [GRPO._replace(lr=2e-4)]),
    "variants": ("reverse", 0.35, 3, [Method("scaled", scale=True), Method("KL 0.04", kl=0.04)]),
}


class Table:
    """Rows of a CSV that is written whole after each run; a run that is there is not made again."""

    def __init__(self, name: str, columns: tuple[str, ...]):
        self.path, self.columns, self.rows = FOLDER / name, columns, []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))

    def add(self, rows: list[dict]) -> None:
        """Append rows, and write the file."""
        self.rows += [{name: told(row[name]) for name in self.columns} for row in rows]
        with atomic_write(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def has(self, key: dict) -> bool:
        """Return whether a run is stored."""
        return any(all(row[name] == told(key[name]) for name in KEY) for row in self.rows)


def told(value) -> str:
    """Return a number in the digits that are stored."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# ---- one run -----------------------------------------------------------------------------------------


def start_of(kind: str, share: float, seed: int) -> GPT:
    """Return a model that is about so often right, greedily, on 200 tasks of its training; kept in runs/."""
    torch.manual_seed(seed)
    model, path = GPT(ModelConfig(len(ALPHABET), **CONFIG)), ROOT / "runs" / f"start-{kind}-{share}-{seed}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    tasks = known_tasks(kind)
    batches = ChatBatches(worked(tasks), 64, CONFIG["context_length"], CHARACTERS.end_id, seed)
    for step in train(model, batches, steps=4000, lr=2e-3, weight_decay=0.0):
        if step.step % 5 == 0 and accuracy(model, tasks[:WATCHED]) >= share:
            break
    path.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def known_tasks(kind: str) -> list:
    """Return the tasks to train on: all but 480 of the sums that there are for it, for those."""
    return string_tasks(kind, 6000 if kind == "sum" else KNOWN)


def make_reward(name: str, seed: int):
    """Return the function of a task and an answer that a method's reward names."""
    coin = random.Random(seed)
    return {
        "exact": exact_reward,
        "letters": letters_reward,
        "random": lambda task, answer: float(coin.random() < 0.5),
    }[name]


class OwnAnswers(RolloutBatches):
    """The same answers, of a model that stays as it is, all taken as right."""

    def write(self, place: int):
        """Return a batch in which each answer is to become more probable."""
        batch = super().write(place)
        return merge_equal(batch._replace(advantages=torch.ones_like(batch.advantages)))


def measure(experiment: str, method: Method, seed: int) -> tuple[dict, list[dict]]:
    """Train one model; return its row of runs.csv and its rows of curves.csv."""
    kind, share, *_ = EXPERIMENTS[experiment]
    start, tasks = start_of(kind, share, seed), known_tasks(kind)
    unseen, watched = string_tasks(kind, UNSEEN, "test"), string_tasks(kind, WATCHED, "validation")
    model, key = copy.deepcopy(start), dict(zip(KEY, (experiment, method.name, method.lr, seed), strict=True))
    source = (OwnAnswers if method.own else RolloutBatches)(
        start if method.own else model,
        tasks,
        make_reward(method.reward, seed),
        method.n_tasks,
        method.group,
        scale=method.scale,
        merge=not (method.kl or method.own),
        seed=seed,
    )
    schedule = warmup_linear(method.steps) if method.decay else constant
    loss = policy_loss(kl=method.kl, reference=start if method.kl else None)
    torch.manual_seed(seed)
    curve, seen, tokens, evaluating, began = [], [], 0, 0.0, time.process_time()

    others = RolloutBatches(model, watched, n_tasks=64, group=2)  # for the divergence

    def look(step: int) -> None:
        reward, exact, length = (np.mean(part) for part in zip(*seen, strict=True))
        apart = divergence(model, start, next(others))
        curve.append(
            dict(key, step=step, reward=float(reward), exact=float(exact), length=float(length))
            | dict(kl=apart, greedy=accuracy(model, watched))
            | dict(sampled=accuracy(model, watched, sampled=True), seconds=now - began - evaluating)
        )
        seen.clear()

    options = dict(lr=method.lr, schedule=schedule, weight_decay=0.0, betas=BETAS, loss=loss)
    for step in train(model, source, steps=method.steps, **options):
        right = [answer == source.drawn[i // method.group].answer for i, answer in enumerate(source.answers)]
        seen.append((source.rewards.mean().item(), np.mean(right), source.lengths.float().mean().item()))
        tokens += int(source.lengths.sum())
        if step.step % EVERY == 0:
            now = time.process_time()
            look(step.step)
            evaluating += time.process_time() - now
    seconds = time.process_time() - began - evaluating
    before, after = (correct(each, unseen, sampled=True) for each in (start, model))
    right = correct(model, unseen)
    row = dict(key, steps=method.steps, answers=method.steps * method.n_tasks * method.group, tokens=tokens)
    row |= dict(seconds=round(seconds, 1), start_greedy=accuracy(start, unseen))
    row |= dict(start_sampled=before.mean().item(), start_pass8=pass_at(8, before))
    row |= dict(greedy=right.mean().item(), sampled=after.mean().item(), pass8=pass_at(8, after))
    row |= {name: curve[-1][name] for name in ("reward", "kl", "length")}
    return row | dict(right="".join(str(int(r)) for r in right)), curve


BETAS = (0.9, 0.999)


def main(names: list[str], only: str | None = None) -> None:
    """Measure what is missing of these experiments, or of the one method `only`."""
    torch.set_num_threads(1)
    runs, curves = Table("runs.csv", RUN), Table("curves.csv", CURVE)
    for name in names:
        _, _, seeds, methods = EXPERIMENTS[name]
        for method, seed in product(methods, range(seeds)):
            key = dict(zip(KEY, (name, method.name, method.lr, seed), strict=True))
            if runs.has(key) or only not in (None, method.name):
                continue
            row, curve = measure(name, method, seed)
            curves.add(curve)
            runs.add([row])
            print(*(f"{name}={told(row[name])}" for name in RUN[:-1]), flush=True)


# ---- what is said of them ------------------------------------------------------------------------------

WORDS = ("experiment", "method", "right")


def read(rows: list[dict]) -> list[dict]:
    """Return stored rows with numbers for the texts, and the gain over the start, greedily."""
    rows = [{name: text if name in WORDS else float(text) for name, text in row.items()} for row in rows]
    return [row | {"gain": row["greedy"] - row["start_greedy"]} for row in rows]


def gain(runs: list[dict]) -> Difference:
    """Return how many more tasks are right than at the start, with an interval over seeds."""
    return paired(runs, [{"seed": row["seed"], "gain": 0.0} for row in runs], "gain")


def points(difference: Difference) -> str:
    """Return a difference of shares in points.

    >>> points(Difference(0.5, 0.05, 0.001, 5))
    '+50.0 ± 5.0'
    """
    return f"{100 * difference.mean:+.1f} ± {100 * difference.half:.1f}"


def against(rows: list[dict], one: tuple, other: tuple) -> str | None:
    """Return a row of the second table: two methods, each (experiment, method, rate), that share seeds."""
    runs = [select(rows, experiment=experiment, method=name, lr=lr) for experiment, name, lr in (one, other)]
    if len({row["seed"] for row in runs[0]} & {row["seed"] for row in runs[1]}) < 2:
        return None
    gaps = [paired(*runs, column) for column in ("greedy", "sampled")]
    names = [f"{name}, {lr:g}" for _, name, lr in (one, other)]
    return " | ".join(["", *names, str(gaps[0].n), *map(points, gaps), f"{gaps[0].p_value:.1g}", ""]).strip()


def summary(rows: list[dict]) -> list[str]:
    """Return two tables: each method by its means over seeds, and pairs of methods, seed by seed."""
    head = "experiment | method | rate | seeds | start | greedy | gain | sampled, start | sampled"
    lines = [f"| {head} | pass@8, start | pass@8 | reward | KL | length | seconds |", "|" + "---|" * 15]
    for experiment, name, lr in dict.fromkeys((r["experiment"], r["method"], r["lr"]) for r in rows):
        runs = select(rows, experiment=experiment, method=name, lr=lr)

        def mean(column, scale=100, digits=1, runs=runs):
            return format(scale * np.mean([row[column] for row in runs]), f".{digits}f")

        cells = [experiment, name, f"{lr:g}", str(len(runs)), mean("start_greedy"), mean("greedy")]
        cells += [points(gain(runs)) if len(runs) > 1 else "", mean("start_sampled"), mean("sampled")]
        cells += [mean("start_pass8"), mean("pass8"), mean("reward", 1, 3), mean("kl", 1, 2)]
        cells += [mean("length", 1, 2), mean("seconds", 1)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| method, rate | less | seeds | greedy | sampled | p, greedy |",
        "|---|---|---|---|---|---|",
    ]
    grpo = ("reverse", "GRPO", GRPO.lr)
    pairs = [(grpo, ("reverse", RANDOM.name, SLOW)), (grpo, ("reverse", OWN.name, OWN.lr))]
    pairs += [(grpo, ("rates", RANDOM.name, RANDOM.lr))]
    pairs += [(("rates", "GRPO", SLOW), ("reverse", RANDOM.name, SLOW))]
    pairs += [(("rates", "GRPO", SLOWER), ("rates", RANDOM.name, SLOWER))]
    pairs += [(grpo, ("variants", method.name, method.lr)) for method in EXPERIMENTS["variants"][3]]
    return lines + [line for pair in pairs if (line := against(rows, *pair))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--method", help="measure this one alone")
    parser.add_argument("--summary", action="store_true", help="print the tables of what is stored")
    options = parser.parse_args()
    if options.summary:
        print(*summary(read(Table("runs.csv", RUN).rows)), sep="\n")
    else:
        main(options.experiments, options.method)
