"""Measure a dictionary of features of the course model, and what else one could look at: data/dictionary/.

    python tools/measure_dictionary.py --seeds 0 1 2

States of the residual stream behind block 1. Features learn from plays that the model learned from; names are chosen on
one half of two unseen plays and checked on the other. `named.csv`: how many units have a name that holds there, for the
features and for as sparse codes along neurons, principal directions, the model's own axes and random directions;
`loss.csv`: bits per byte when the reconstruction replaces the states; `features.csv`: the features of seed 0, with their
names. What is stored is not repeated. One thread; about 2 minutes of processor time a seed.
"""

import argparse
import csv
from pathlib import Path

import torch

from llmcourse.data.batches import pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.interpret.dictionary import (
    both_ways,
    coder_of,
    explained_variance,
    keep_largest,
    principal_directions,
    train_dictionary,
)
from llmcourse.interpret.hooks import hooked, record
from llmcourse.interpret.naming import (
    name_by_tokens,
    name_units,
    rule_table,
    strongly_active,
    structure_rules,
    token_rules,
)
from llmcourse.pretrained import load_course_model
from llmcourse.support.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "data" / "dictionary"
SITE, HIDDEN = "blocks.1.residual", "blocks.1.mlp.hidden"
FEATURES, K, LEARN, LOOK, SCORE = 768, 16, 65_536, 40_960, 12_800  # numbers of tokens
NAMED = (
    "seed",
    "units",
    "number",
    "active",
    "named",
    "different",
    "token",
    "before",
    "pair",
    "place",
    "among_five",
    "shuffled",
)
LOSS = ("seed", "states", "explained", "bits_per_byte")
LISTED = ("feature", "rule", "precision", "recall", "tokens")


class Material:
    """The model's states on three texts, and the rules that hold there."""

    def __init__(self):
        self.model, self.tokenizer = load_course_model("pretrained")
        end_id = self.tokenizer.special_tokens["<|endoftext|>"]
        parts = [[play.text for play in part] for part in split_by_title(load_plays(quiet=True))[:2]]
        self.learn_ids, unseen = (
            pack([self.tokenizer.encode(text) for text in part], end_id) for part in parts
        )
        T = self.model.config.context_length
        rows = unseen[: len(unseen) // T * T].view(-1, T)
        self.halves = [rows[start::2][: LOOK // 2 // T].flatten() for start in (0, 1)]  # every other window
        self.unseen = unseen[: SCORE + 1]
        windows = self.learn_ids[: len(self.learn_ids) // T * T].view(-1, T)
        self.learn = self.states(windows[:: len(windows) // (LEARN // T)][: LEARN // T].flatten(), SITE)
        self.there = [self.states(half, SITE) for half in self.halves]
        self.pieces = [[self.tokenizer.decode([i]) for i in half.tolist()] for half in self.halves]
        self.names = [*structure_rules(self.pieces[0]), *token_rules(self.pieces[0])]
        self.rules = [rule_table(pieces, self.names) for pieces in self.pieces]

    def states(self, ids: torch.Tensor, site: str) -> torch.Tensor:
        """Return the states (N, C) at a site, window by window."""
        rows = ids.view(-1, self.model.config.context_length)
        return torch.cat([record(self.model, some, site)[site].flatten(0, 1) for some in rows.split(16)])


def codes_of(material: Material, coder) -> list[torch.Tensor]:
    """Return the codes (N, F) of both halves."""
    return [coder.encode(states) for states in material.there]


def neuron_codes(material: Material) -> list[torch.Tensor]:
    """Return the hidden units of block 1's MLP, both ways, in units of their deviation, the k largest kept."""
    first, second = (material.states(half, HIDDEN) for half in material.halves)
    mean, deviation = first.mean(0), first.std(0)
    both = [(x - mean) / deviation for x in (first, second)]
    return [keep_largest(torch.cat([x, -x], dim=1), K) for x in both]


def count_names(material: Material, codes: list[torch.Tensor], generator) -> tuple[dict, list]:
    """Return how many units have a good name, by kind of rule, and what each is called."""
    active = [strongly_active(x, codes[0]) for x in codes]
    names = name_units(active[0], material.rules[0], active[1], material.rules[1], material.names)
    good = [name for name in names if name.good]
    shuffled = [
        x[torch.randperm(len(x), generator=generator)] for x in active
    ]  # the same units, on any tokens
    by_luck = name_units(shuffled[0], material.rules[0], shuffled[1], material.rules[1], material.names)
    row = dict(number=codes[0].shape[1], active=len(names), named=len(good))
    row |= dict(different=len({name.rule for name in good}))
    row |= {kind: sum(name.kind == kind for name in good) for kind in ("token", "before", "pair", "place")}
    by_tokens = name_by_tokens(active[0], material.pieces[0], active[1], material.pieces[1])
    row |= dict(among_five=sum(name.good for name in by_tokens))
    return row | dict(shuffled=sum(name.good for name in by_luck)), [*names, *by_tokens]


def examples(material: Material, codes: list[torch.Tensor], unit: int, n: int = 5) -> str:
    """Return the tokens of the second half on which a unit is largest, each once."""
    order, found = codes[1][:, unit].argsort(descending=True).tolist(), []
    for t in order[:200]:
        if material.pieces[1][t] not in found:
            found.append(material.pieces[1][t])
    return " ".join(map(repr, found[:n]))


def loss_with(material: Material, edit) -> float:
    """Return the bits per byte of the unseen text with `edit` at the site."""
    ids = material.unseen
    with hooked(material.model, {} if edit is None else {SITE: edit}):
        loss = evaluate_loss(material.model, ids)
    return bits_per_byte(loss, len(ids) - 1, len(material.tokenizer.decode(ids[1:].tolist()).encode()))


def measure(material: Material, seed: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Return the rows of the three tables for one seed."""
    torch.manual_seed(seed)
    generator, learn = torch.Generator().manual_seed(seed), material.learn
    principal, axes = principal_directions(learn), torch.eye(learn.shape[1])
    coders = {
        "features": train_dictionary(learn, FEATURES, K, seed=seed),
        "principal directions": coder_of(both_ways(principal), learn, K),
        "axes of the stream": coder_of(both_ways(axes), learn, K),
        "random directions": coder_of(torch.randn(FEATURES, learn.shape[1], generator=generator), learn, K),
    }
    codes = {name: codes_of(material, coder) for name, coder in coders.items()} | {
        "neurons": neuron_codes(material)
    }
    named, listed = [], []
    for name, some in codes.items():
        row, names = count_names(material, some, generator)
        named.append(dict(seed=seed, units=name) | row)
        print(named[-1], flush=True)
        if name == "features":
            listed = [
                dict(
                    feature=n.unit,
                    rule=n.rule,
                    precision=n.precision,
                    recall=n.recall,
                    tokens=examples(material, some, n.unit),
                )
                for n in names
            ]
    return named, losses(material, coders, principal, seed), listed


def losses(material: Material, coders: dict, principal: torch.Tensor, seed: int) -> list[dict]:
    """Return what each reconstruction costs: k numbers a state, but for the last rows."""
    states, mean = material.there[0], material.learn.mean(0)
    edits = {"as they are": None, "their mean": lambda x: mean.expand_as(x).clone()}
    edits |= {f"{K} {name}": coder for name, coder in coders.items() if name != "random directions"}
    for n in (K, 96):
        edits[f"first {n} principal directions"] = lambda x, p=principal[:n]: (x - mean) @ p.T @ p + mean
    rows = []
    for name, edit in edits.items():
        explained = 1.0 if edit is None else explained_variance(states, edit(states))
        rows.append(
            dict(seed=seed, states=name, explained=explained, bits_per_byte=loss_with(material, edit))
        )
        print(rows[-1], flush=True)
    return rows


def write(name: str, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Write a table, numbers in four digits."""
    rows = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    with atomic_write(FOLDER / name) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Measure the seeds that are missing, and write after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    paths = [FOLDER / name for name in ("named.csv", "loss.csv")]
    named, loss = (
        list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else [] for path in paths
    )
    material = Material()
    for seed in sorted(set(seeds) - {int(row["seed"]) for row in named}):
        new_named, new_loss, listed = measure(material, seed)
        named, loss = named + new_named, loss + new_loss
        if seed == 0:
            write("features.csv", LISTED, listed)
        write("named.csv", NAMED, named)
        write("loss.csv", LOSS, loss)


if __name__ == "__main__":
    main()
