"""The stored runs of chapter 5c: what each technique is worth, with its uncertainty, and the race."""

import csv
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import mean

from llmcourse.data.manifest import course_data
from llmcourse.teach import plots

NUMBERS = ("loss", "loss_stride_32", "seconds", "training_seconds", "steps", "parameters", "tokens", "seed")
NUMBERS += ("threads",)


@dataclass(frozen=True)
class Effect:
    """What a technique changes: the loss in nats (below 0 is better), ± half a 95 % interval, and time.

    `cost` is the technique's CPU seconds over those of its base; `runs` is how many seeds.
    """

    technique: str
    difference: float
    half_width: float
    cost: float
    runs: int

    @property
    def verdict(self) -> str:
        """Say "helps" or "hurts" where the interval leaves out 0, else "no difference seen"."""
        if abs(self.difference) <= self.half_width or not math.isfinite(self.difference):
            return "no difference seen" if math.isfinite(self.difference) else "diverges"
        return "helps" if self.difference < 0 else "hurts"


def read_runs(name: str) -> list[dict]:
    """Return the rows of data/ablation/`name`.csv ("runs" or "race"), numbers as floats."""
    with (course_data() / "ablation" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {key: float(row[key]) for key in NUMBERS if row.get(key)}
        for key in ("changes", "curve"):
            if key in row:
                row[key] = json.loads(row[key])
    return rows


def finalists(rows: list[dict], optimizer: str) -> list[dict]:
    """Return the settings of the search that were run again with new seeds, the best mean first.

    Each is a dict: "changes" to the recipe, the loss of the one "trial", and the new "losses".
    """
    found = {}
    for row in rows:
        if (row["part"], row["optimizer"]) == ("search", optimizer):
            entry = found.setdefault(str(row["changes"]), {"changes": row["changes"], "losses": []})
            if row["technique"] == "trial":
                entry["trial"] = row["loss"]
            else:
                entry["losses"].append(row["loss"])
    return sorted((e for e in found.values() if e["losses"]), key=lambda entry: mean(entry["losses"]))


def tuned_settings(rows: list[dict], optimizer: str) -> dict:
    """Return the changes that tune the plain recipe for an optimizer: those of the best finalist.

    >>> tuned_settings(read_runs("runs"), "muon")["momentum"]
    0.95
    """
    return finalists(rows, optimizer)[0]["changes"]


def effects(rows: list[dict], part: str, optimizer: str) -> list[Effect]:
    """Return the effect of each technique of one part ("add" or "remove"), the best first.

    A technique and its base share their seeds, so each seed gives one difference. How far such
    differences scatter is estimated from all techniques together: three seeds of one technique
    say little about it. The interval is ± 1.96 · scatter / √seeds.
    Raises ValueError when there are no such rows.
    """
    losses, seconds = defaultdict(dict), defaultdict(list)
    for row in rows:
        if (row["part"], row["optimizer"]) == (part, optimizer):
            losses[row["technique"]][row["seed"]] = row["loss"]
            seconds[row["technique"]].append(row["seconds"])
    base = losses.pop("base", None)
    if not base:
        raise ValueError(f"no base among the runs of part {part!r} and optimizer {optimizer!r}")
    gaps = {name: [loss - base[seed] for seed, loss in found.items()] for name, found in losses.items()}
    usable = [values for values in gaps.values() if all(map(math.isfinite, values)) and len(values) > 1]
    squares = sum((value - mean(values)) ** 2 for values in usable for value in values)
    scatter = math.sqrt(squares / max(1, sum(len(values) - 1 for values in usable)))
    found = []
    for name, values in gaps.items():
        cost = mean(seconds[name]) / mean(seconds["base"])
        found.append(Effect(name, mean(values), 1.96 * scatter / math.sqrt(len(values)), cost, len(values)))
    return sorted(found, key=lambda effect: effect.difference)


def effects_figure(groups: dict[str, list[Effect]], limit: float = 0.3):
    """Draw effects with their intervals, one row a technique, one mark a group; return the axis.

    The order is that of the first group. Marks beyond ± `limit` are drawn at the edge.
    """
    names = [effect.technique for effect in next(iter(groups.values()))][::-1]
    axis = plots.new_figure(height=0.8 + 0.19 * len(names))[1]
    shift = 0.15 * (len(groups) - 1)
    reach = limit
    for (group, found), color, marker in zip(groups.items(), plots.COLORS, "osD", strict=False):
        at = [names.index(effect.technique) + shift for effect in found]
        middle = [max(-limit, min(limit, effect.difference)) for effect in found]
        error = [effect.half_width for effect in found]
        axis.errorbar(middle, at, xerr=error, fmt=marker, color=color, markersize=4, linewidth=1, label=group)
        shift -= 0.3
        reach = max(reach, *(abs(x) + half for x, half in zip(middle, error, strict=True)))
    axis.axvline(0, color="0.5", linewidth=1)
    axis.set(xlabel="change of the loss in nats (left: better)", xlim=(-1.05 * reach, 1.05 * reach))
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.legend(frameon=False, loc="upper right")
    return axis
