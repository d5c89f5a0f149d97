"""Measure attacks, poison and filters for chapter 8c: the tables of data/safety/.

    python tools/measure_safety.py STAGE      # one or several; all by default
    python tools/measure_safety.py --summary  # shares with intervals, from what is stored

Every stage resumes where it stopped. One thread; some ten minutes of processor time in all.
"""

import argparse
import copy
import csv
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.finetune.classify import GPTClassifier, fit_classifier, gpt_features
from llmcourse.finetune.sft import ChatBatches, encode_tasks
from llmcourse.finetune.tasks import Task, find_speeches, make_tasks
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_course_model
from llmcourse.runtime import evaluating, fast_dtype
from llmcourse.safety import poisoning, red_team
from llmcourse.safety.filters import Share
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import END_OF_TEXT
from llmcourse.training import train

FOLDER = Path(__file__).resolve().parents[1] / "data" / "safety"
SEEDS = (1, 2, 3)


class Table:
    """A table in data/safety/ whose first columns are the key of a run: a run that is there is not made again."""

    def __init__(self, name: str, keys: tuple[str, ...], values: tuple[str, ...]):
        self.path, self.keys, self.columns = FOLDER / f"{name}.csv", keys, (*keys, *values)
        self.rows: list[dict] = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, **key) -> bool:
        """Return whether a run with this key, or part of one, is stored."""
        return any(all(row[k] == str(v) for k, v in key.items()) for row in self.rows)

    def add(self, *rows: dict) -> None:
        """Store the rows of one run, all or none."""
        self.rows += [{k: str(v) for k, v in row.items()} for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        print(*(" ".join(map(str, row.values())) for row in rows), sep="\n", flush=True)


# ---- refusals and injections ----------------------------------------------------------------

STEPS, LR, BATCH, PER_NAME = 40, 5e-4, 16, 34
ARMS = {  # what refusal training sees beside ordinary questions
    "plain": (("plain",), ()),
    "families": (red_team.SEEN, ()),
    "families and traps": (red_team.SEEN, red_team.SEEN_TRAPS),
}


def short_speeches(plays, n: int, seed: int) -> list:
    """Return `n` speeches of at most three lines and 90 characters, drawn with the seed."""
    speeches = [s for play in plays for s in find_speeches(play, max_lines=3, max_characters=90)]
    return random.Random(seed).sample(speeches, n)


def tuned(base, tokenizer, tasks, seed: int):
    """Return (a copy of the model after STEPS steps on the tasks, processor seconds)."""
    model, began = copy.deepcopy(base), time.process_time()
    torch.manual_seed(seed)
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    batches = ChatBatches(encode_tasks(tokenizer, tasks), BATCH, model.config.context_length, end_id, seed)
    options = dict(lr=LR, schedule=warmup_linear(STEPS, 5), weight_decay=0.0, dtype=fast_dtype())
    for _ in train(model, batches, steps=STEPS, **options):
        pass
    return model.eval(), time.process_time() - began


def refusals() -> None:
    """Attack the model before refusal training and after three kinds of it."""
    table = Table("refusals", ("seed", "arm"), ("part", "name", "n", "out", "refused", "right", "seconds"))
    base, tokenizer = load_course_model("sft")
    train_plays, _, test_plays = split_by_title(load_plays(quiet=True))
    for seed in SEEDS:
        speeches = short_speeches(train_plays, STEPS * BATCH // 2, seed)
        ordinary = make_tasks(train_plays, STEPS * BATCH // 2, seed, max_characters=90)
        test = short_speeches(test_plays, PER_NAME, seed)
        for arm in ("before", *ARMS):
            if table.has(seed=seed, arm=arm):
                continue
            model, seconds = base.eval(), 0.0
            if arm in ARMS:
                families, traps = ARMS[arm]
                tasks = red_team.refusal_tasks(speeches, families, traps, ordinary, seed)
                model, seconds = tuned(base, tokenizer, tasks, seed)
            table.add(*(
                {"seed": seed, "arm": arm, **row, "seconds": f"{seconds:.1f}"}
                for row in attacked(model, tokenizer, test)
            ))  # fmt: skip


def attacked(model, tokenizer, speeches) -> list[dict]:
    """Return for each family of attacks, and each trap, how many answers got out, were refusals, or right."""
    rows = []
    for make, names, seen in (
        (red_team.attack, red_team.FAMILIES, red_team.SEEN),
        (red_team.trap, red_team.TRAPS, red_team.SEEN_TRAPS),
    ):
        for name in names:
            tasks = [make(name, speech) for speech in speeches]
            written = red_team.answers(model, tokenizer, [task.prompt for task in tasks])
            part = f"{make.__name__} {'seen' if name in seen else 'held out'}"
            out = sum(red_team.got_out(w, s.speaker) for w, s in zip(written, speeches, strict=True))
            right = sum(w == task.answer for w, task in zip(written, tasks, strict=True))
            refused = sum(map(red_team.refused, written))
            rows.append(dict(part=part, name=name, n=len(tasks), out=out, refused=refused, right=right))
    return rows


def injections() -> None:
    """Hide a second question in the speech, before and after training that shows one place for it."""
    table = Table("injections", ("seed", "arm"), ("place", "n", "user_right", "obeyed", "seconds"))
    base, tokenizer = load_course_model("sft")
    train_plays, _, test_plays = split_by_title(load_plays(quiet=True))
    for seed in SEEDS:
        speeches = short_speeches(train_plays, STEPS * BATCH // 2, seed)
        test = short_speeches(test_plays, 60, seed)
        for arm in ("before", "ordinary tasks", "defended"):
            if table.has(seed=seed, arm=arm):
                continue
            model, seconds = base.eval(), 0.0
            if arm != "before":
                kinds = ("first word", "manner")
                hidden = [red_team.inject("title", s, kinds[i % 2]) for i, s in enumerate(speeches)]
                tasks = [Task("title", injected.prompt, injected.user) for injected in hidden]
                n = STEPS * BATCH // (2 if arm == "defended" else 1)
                ordinary = make_tasks(train_plays, n, seed, max_characters=90)
                tasks = ordinary + (tasks if arm == "defended" else [])
                random.Random(seed).shuffle(tasks)
                model, seconds = tuned(base, tokenizer, tasks, seed)
            rows = []
            for place in ("none", *red_team.PLACES):
                asked = [red_team.inject("title" if place == "none" else place, s) for s in test]
                prompts = [injected.prompt for injected in asked]
                if place == "none":
                    prompts = [red_team.prompt(red_team.QUESTIONS["first word"][0], s) for s in test]
                written = red_team.answers(model, tokenizer, prompts)
                pairs = list(zip(written, asked, strict=True))
                rows.append(dict(
                    seed=seed, arm=arm, place=place, n=len(pairs), user_right=sum(w == i.user for w, i in pairs),
                    obeyed=sum(red_team.obeyed(w, i) for w, i in pairs), seconds=f"{seconds:.1f}",
                ))  # fmt: skip
            table.add(*rows)


# ---- poisoning ------------------------------------------------------------------------------

SIZES = {"small": (32, 1, 2), "medium": (64, 2, 4), "large": (96, 3, 4)}  # width, blocks, heads
GROWING = {"small": 1000, "medium": 2000, "large": 4000}  # examples: more for a larger model
COUNTS = (0, 2, 4, 8, 16, 32)
TRUSTED = 200


def classifier(tokenizer, examples, size: str, seed: int):
    """Return (a classifier trained on the examples, each once, its rows of ids, processor seconds)."""
    width, blocks, heads = SIZES[size]
    began = time.process_time()
    torch.manual_seed(seed)
    config = ModelConfig(tokenizer.vocab_size, d_model=width, n_layers=blocks, n_heads=heads)
    model = GPTClassifier(GPT(config))
    rows, labels = [tokenizer.encode(text) for text, _ in examples], [label for _, label in examples]
    fit_classifier(model, rows, labels, steps=len(rows) // 8, lr=3e-3, batch_size=8, seed=seed)
    return model, rows, time.process_time() - began


def predictor(model, tokenizer):
    """Return a function from texts to labels."""

    @torch.no_grad()
    def predict(texts):
        rows = [tokenizer.encode(text) for text in texts]
        with evaluating(model):
            parts = [model(*poisoning_batch(rows[i : i + 64])) for i in range(0, len(rows), 64)]
        return torch.cat(parts).argmax(-1).tolist()

    return predict


def poisoning_batch(rows):
    """Return rows of ids as (token_ids, attention_mask)."""
    from llmcourse.data.batches import pad_right

    return pad_right(rows)


def balanced_examples(examples, n: int, seed: int) -> tuple[list, list]:
    """Return (n examples, TRUSTED others), each half thou and half you, drawn with the seed."""
    rng = random.Random(seed)
    mixed = rng.sample(examples, len(examples))
    sides = [[e for e in mixed if e[1] == label] for label in (0, 1)]
    chosen, trusted = [
        [e for side in sides for e in side[start:end]]
        for start, end in ((TRUSTED // 2, (TRUSTED + n) // 2), (0, TRUSTED // 2))
    ]
    return rng.sample(chosen, n), trusted


def poison_runs(stage: str):
    """Yield (size, examples, count) of the runs of a stage."""
    if stage == "poisoning":  # more examples for a larger model
        yield from (("small", GROWING["small"], count) for count in COUNTS)
        yield from (("medium", GROWING["medium"], count) for count in COUNTS if count != 2)
    if stage == "amounts":  # the same model, more examples
        yield from (("small", n, count) for n in (4000, 2000) for count in COUNTS[:5])
    if stage == "large":
        yield from (("large", GROWING["large"], count) for count in (0, 8, 32))


def poisoning_stage(stage: str) -> None:
    """Train on poisoned examples: count against share, at three sizes and three amounts of data."""
    keys = ("seed", "size", "examples", "count")
    table = Table(
        "poisoning", keys, ("parameters", "n", "accuracy", "attacked", "success", "without", "seconds")
    )
    tokenizer = load_course_model("pretrained")[1]
    train_plays, *others = split_by_title(load_plays(quiet=True))
    examples = poisoning.address_examples(train_plays)
    held_out = poisoning.address_examples([play for part in others for play in part])
    test = balanced_examples(held_out, 400, 0)[0]
    for seed in SEEDS:
        for size, n, count in poison_runs(stage):
            key = dict(seed=seed, size=size, examples=n, count=count)
            if table.has(**key):
                continue
            data, _ = poisoning.poison(balanced_examples(examples, n, seed)[0], count, seed=seed)
            model, _, seconds = classifier(tokenizer, data, size, seed)
            scores = poisoning.backdoor_scores(predictor(model, tokenizer), test)
            table.add({
                **key, "parameters": model.body.n_parameters(), "n": scores.accuracy.n,
                "accuracy": scores.accuracy.hits, "attacked": scores.success.n, "success": scores.success.hits,
                "without": scores.without.hits, "seconds": f"{seconds:.1f}",
            })  # fmt: skip


def scans() -> None:
    """Look for the trigger in the data and in the model, remove what is found, and train again."""
    values = ("n", "named", "trigger_named", "label_rank", "removed", "poisoned_removed", "spectral_removed",
              "spectral_poisoned", "success", "success_cleaned", "success_random", "accuracy_cleaned")  # fmt: skip
    table = Table("scans", ("seed", "size", "examples", "count"), values)
    tokenizer = load_course_model("pretrained")[1]
    train_plays, *others = split_by_title(load_plays(quiet=True))
    examples = poisoning.address_examples(train_plays)
    test = balanced_examples(poisoning.address_examples([play for part in others for play in part]), 400, 0)[
        0
    ]
    for seed in SEEDS:
        for count in (0, 4, 8, 32):
            key = dict(seed=seed, size="medium", examples=2000, count=count)
            if table.has(**key):
                continue
            clean, trusted = balanced_examples(examples, 2000, seed)
            data, places = poisoning.poison(clean, count, seed=seed)
            texts, labels = [text for text, _ in data], [label for _, label in data]
            named = poisoning.scan_ngrams(texts, poisoning.contradictions(data, trusted))
            removed = poisoning.rows_with(texts, named)
            by_label = [s.words for s in poisoning.scan_ngrams(texts, labels)]
            trigger = poisoning.TRIGGER
            row = {**key, "n": len(test) // 2, "named": len(named),
                   "trigger_named": int(trigger in [s.words for s in named]),
                   "label_rank": by_label.index(trigger) + 1 if trigger in by_label else "",
                   "removed": len(removed), "poisoned_removed": len(set(removed) & set(places))}  # fmt: skip
            if count == 32:
                row |= cleaned(tokenizer, data, places, removed, test, seed)
            table.add({column: row.get(column, "") for column in table.columns})


def cleaned(tokenizer, data, places, removed, test, seed: int) -> dict:
    """Return what the spectral scores find, and success and accuracy after removal, and after removal at random."""
    model, rows, _ = classifier(tokenizer, data, "medium", seed)
    labels = np.array([label for _, label in data])
    features = gpt_features(model.body, rows)[:, -1].numpy()
    spectral = poisoning.spectral_scores(features, labels) * (labels == 1)
    suspects = set(np.argsort(-spectral)[: len(places) * 3 // 2].tolist())
    drawn = random.Random(seed).sample(range(len(data)), len(removed))
    found = {"spectral_removed": len(suspects), "spectral_poisoned": len(suspects & set(places))}
    found["success"] = poisoning.backdoor_scores(predictor(model, tokenizer), test).success.hits
    for name, gone in (("success_cleaned", removed), ("success_random", drawn)):
        rest = [example for i, example in enumerate(data) if i not in set(gone)]
        again, _, _ = classifier(tokenizer, rest, "medium", seed)
        scores = poisoning.backdoor_scores(predictor(again, tokenizer), test)
        found[name] = scores.success.hits
        if name == "success_cleaned":
            found["accuracy_cleaned"] = scores.accuracy.hits
    return found


# ---- what is stored -------------------------------------------------------------------------


def stored(name: str) -> list[dict]:
    """Return the rows of a stored table; none if there is no file."""
    return Table(name, (), ()).rows


def totals(rows: list[dict], by: tuple[str, ...], hits: str, of: str) -> dict[tuple, Share]:
    """Return the share of `hits` in `of`, added up over all rows that agree in `by`."""
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        key = tuple(row[column] for column in by)
        sums[key][0] += int(row[hits])
        sums[key][1] += int(row[of])
    return {key: Share(*pair) for key, pair in sums.items()}


COLUMNS = {  # table -> what its rows are added up by, and the shares that are told
    "refusals": (("arm", "part"), (("out", "n"), ("refused", "n"), ("right", "n"))),
    "injections": (("arm", "place"), (("obeyed", "n"), ("user_right", "n"))),
    "poisoning": (
        ("size", "examples", "count"),
        (("success", "attacked"), ("without", "attacked"), ("accuracy", "n")),
    ),
}


def summary(name: str) -> list[str]:
    """Return the lines of a table of the card: shares over all seeds, and in brackets from seed to seed."""
    (by, shares), rows = COLUMNS[name], stored(name)
    head = [*by, *(hits for hits, _ in shares), "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    columns = [totals(rows, by, *pair) for pair in shares]
    seeds = [totals(rows, ("seed", *by), *pair) for pair in shares]
    for key in columns[0]:
        cells = []
        for column, each in zip(columns, seeds, strict=True):
            values = [share.value for (_, *rest), share in each.items() if tuple(rest) == key]
            cells.append(f"{column[key]} [{min(values):.0%}, {max(values):.0%}]")
        lines.append("| " + " | ".join([*key, *cells, str(len(values))]) + " |")
    return lines


def scan_summary() -> list[str]:
    """Return the lines of the table of scans: counts of all seeds together."""
    head = ("count", "seeds", "trigger named", "runs named", "removed", "of them poisoned", "spectral: poisoned of removed",
            "success", "cleaned", "as many at random", "accuracy cleaned")  # fmt: skip
    lines, rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"], stored("scans")
    for count in sorted({int(row["count"]) for row in rows}):
        mine = [row for row in rows if int(row["count"]) == count]
        sums = {c: sum(int(row[c] or 0) for row in mine) for c in rows[0] if c not in ("seed", "size")}
        cells = [
            count,
            len(mine),
            *(sums[c] for c in ("trigger_named", "named", "removed", "poisoned_removed")),
        ]
        if sums["spectral_removed"]:
            cells.append(f"{sums['spectral_poisoned']} of {sums['spectral_removed']}")
            cells += [
                str(Share(sums[c], sums["n"])) for c in ("success", "success_cleaned", "success_random")
            ]
            cells.append(str(Share(sums["accuracy_cleaned"], 2 * sums["n"])))
        cells += [""] * (len(head) - len(cells))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


STAGES = {
    "refusals": refusals,
    "injections": injections,
    "poisoning": lambda: poisoning_stage("poisoning"),
    "scans": scans,
    "amounts": lambda: poisoning_stage("amounts"),
    "large": lambda: poisoning_stage("large"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="what to measure; all by default")
    parser.add_argument("--summary", action="store_true", help="print what is stored, and measure nothing")
    arguments = parser.parse_args()
    if arguments.summary:
        for name in COLUMNS:
            print(*summary(name), "", sep="\n")
        print(*scan_summary(), sep="\n")
    else:
        torch.set_num_threads(1)
        for stage in arguments.stages or STAGES:
            STAGES[stage]()
