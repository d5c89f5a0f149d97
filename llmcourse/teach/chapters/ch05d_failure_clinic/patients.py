"""The patients of chapter 5d: which bug hides behind which letter, their charts and lab tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
import numpy as np

from llmcourse.monitor.planted_bugs import BUGS
from llmcourse.monitor.run_record import Run
from llmcourse.monitor.small_run import Setup, healthy_run, healthy_setup, sick_run
from llmcourse.teach.chapters.ch05d_failure_clinic.stored import SEED, stored_patients
from llmcourse.teach.plots import COLORS

HEALTHY = "healthy"
ROUNDS: dict[str, dict[str, str]] = {  # guess before you read this
    "too good": {
        "A": "label leak",
        "B": "softmax over the wrong axis",
        "C": "targets not shifted",
        "D": "no causal mask",
    },
    "stuck": {
        "E": "weight decay too strong",
        "F": "float16 underflow",
        "G": "learning rate too low",
        "H": "weight tying broken",
    },
    "restless": {
        "I": "gradients not reset",
        "J": HEALTHY,
        "K": "learning rate too high",
        "L": "initialization too large",
    },
    "fine in training": {
        "M": "too little text",
        "N": "evaluation mode forgotten",
        "O": "tokenizer mismatch",
        "P": "data not shuffled",
    },
}


def train_patient(letter: str, seed: int) -> Run:
    """Train one patient, and return its record."""
    name = next(names[letter] for names in ROUNDS.values() if letter in names)
    return healthy_run(seed + 1) if name == HEALTHY else sick_run(BUGS[name], seed)


def admit(round_name: str, seed: int) -> dict[str, Run]:
    """Return the records of the four patients of a round, by letter.

    Those of the seed SEED (1234) were stored by `tools/record_patients.py`; others are trained, in some seconds.
    """
    if seed == SEED:
        return {letter: stored_patients()[letter] for letter in ROUNDS[round_name]}
    return {letter: train_patient(letter, seed) for letter in ROUNDS[round_name]}


def untrained(round_name: str, seed: int) -> Iterator[tuple[str, Setup]]:
    """Yield the letter and the parts of each patient of a round, its bug in and not one step done."""
    for letter, name in ROUNDS[round_name].items():
        setup = healthy_setup(seed)
        if name != HEALTHY:
            BUGS[name](setup)
        yield letter, setup


def charts(patients: Mapping[str, Run], healthy: Sequence[Run], loss_limits=None, norm_limits=None):
    """Draw losses (top) and gradient norms (bottom) of each patient over the range of healthy runs."""
    size = dict(figsize=(6.8, 3.8), sharex=True, sharey="row", layout="constrained", squeeze=False)
    figure, axes = plt.subplots(2, len(patients), **size)
    steps = [step.step for step in healthy[0].steps]
    curves = [
        np.array([[getattr(s, key) for s in run.steps] for run in healthy]) for key in ("loss", "grad_norm")
    ]
    for (letter, run), (top, bottom) in zip(patients.items(), axes.T, strict=True):
        mine = [step.step for step in run.steps]
        for axis, curve, key in ((top, curves[0], "loss"), (bottom, curves[1], "grad_norm")):
            low, high = smooth(curve).min(0), smooth(curve).max(0)
            grey = dict(color="0.75", linewidth=0, label=f"healthy, {len(healthy)} seeds")
            axis.fill_between(steps, low, high, **grey)
            values = smooth(np.array([[getattr(s, key) for s in run.steps]]))[0]
            axis.plot(mine, values, color=COLORS[0], label="training, 5-step mean")
            axis.spines[["top", "right"]].set_visible(False)
        top.plot(*run.validation(), "o", color=COLORS[1], markersize=3, label="validation")
        top.plot(*healthy[0].validation(), "_", color="black", markersize=6, label="validation, healthy")
        top.set_title(letter)
        bottom.set_xlabel("step")
    axes[0, 0].set(ylabel="loss (nats)", ylim=loss_limits)
    axes[1, 0].set(ylabel="gradient norm", yscale="log", ylim=norm_limits)
    limits = axes[1, 0].get_ylim()
    wide = limits[1] > 20 * limits[0]
    ticks = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30) if wide else (0.1, 0.2, 0.5, 1, 2, 5)
    ticks = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
    axes[1, 0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[1, 0].set_yticks([], minor=True)
    names = axes[0, 0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def smooth(rows: np.ndarray, width: int = 5) -> np.ndarray:
    """Return the mean of each value and the up to `width - 1` before it, for rows (N, steps).

    >>> smooth(np.array([[1.0, 3.0, 5.0]]), width=2).tolist()
    [[1.0, 2.0, 4.0]]
    """
    return np.stack([rows[:, max(0, i - width + 1) : i + 1].mean(1) for i in range(rows.shape[1])], axis=1)


def lab_values(run: Run) -> dict[str, str]:
    """Return the probes of a record as short texts, in the order of a check-up."""
    logged = {step.step: step.grad_norm for step in run.steps}
    ratio = median(
        [logged[s] / norm for s, norm in run.recomputed_grad_norms.items() if s in logged] or [math.nan]
    )
    still = min(run.parameter_movement, key=run.parameter_movement.get)
    return {
        "validation tokens by training frequencies, nats": f"{run.cross_entropy:.2f}",
        "rows that begin where the last one ended": f"{run.follow_on:.0%}",
        "untrained loss, nats": f"{run.untrained_loss:.2f}",
        "training loss, last 20 steps, nats": f"{run.last_losses():.2f}",
        "validation loss at the end, nats": f"{run.repeated_validation_loss[0]:.4f}",
        "the same, measured again, nats": f"{run.repeated_validation_loss[1]:.4f}",
        "logit change: next token changed": f"{run.future_leak[0]:.2g}",
        "logit change: two or more places later": f"{run.future_leak[1]:.2g}",
        "attention rows: largest distance from 1": f"{run.row_sums:.0e}",
        "first choice is the token just read": f"{run.copied:.0%}",
        "gradient used / computed anew": f"{ratio:.2f}",
        "zeros in the gradient of the blocks": f"{run.zeros:.0%}",
        "largest change in one step / length of weights": f"{max(run.updates.values(), default=math.nan):.2%}",
        "least moved parameter, whole run / its length": f"{run.parameter_movement[still]:.1%}",
        "mean gain of the norms (1 at the start)": f"{run.norm_gain:.2f}",
        "length of the matrices, end / start": f"{run.growth:.1f}",
        "own text by a bigram model, nats": f"{run.sample_bigram_loss:.2f}",
    }


ASKED = {  # the first words of the rows that a round asks for, out of all that `lab_values` gives
    "too good": ("untrained loss", "validation loss", "logit change", "attention rows", "first choice"),
    "stuck": ("validation loss", "zeros", "largest change", "least moved", "mean gain"),
    "restless": ("untrained loss", "validation loss", "gradient used", "largest change", "length of"),
    "fine in training": (
        "validation tokens",
        "rows that begin",
        "training loss",
        "validation loss",
        "the same",
    ),
}


def lab_table(patients: Mapping[str, Run], healthy: Run, round_name: str = "") -> str:
    """Return probes as a table of text: a row each, a column for a healthy run and each patient.

    With `round_name`, only the rows that this round asks for.
    """
    columns = {"healthy": lab_values(healthy), **{name: lab_values(run) for name, run in patients.items()}}
    rows = [row for row in columns["healthy"] if row.startswith(ASKED.get(round_name, ""))]
    lines = [" " * 48 + "".join(f"{name:>9}" for name in columns)]
    lines += [f"{row:48}" + "".join(f"{c[row]:>9}" for c in columns.values()) for row in rows]
    return "\n".join(lines)


def samples(patients: Mapping[str, Run], length: int = 66) -> str:
    """Return the beginning of the text that each patient wrote, a line each, line breaks shown as ↵."""
    return "\n".join(f"{name:8} {run.sample[:length]!r}" for name, run in patients.items()).replace(
        "\\n", "↵"
    )
