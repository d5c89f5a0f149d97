"""Measure whether what is written under a constraint fits: random expressions and schemas, random logits.

Each one is written to twice: freely, until it ends or 64 tokens are full, and so that it ends within as many
tokens as it needs and up to 24 more. What is whole is judged by `regex` or by `jsonschema`; what was cut off
is counted apart; where `regex` does not come to an end within a second, nothing is judged. Then the time of
a mask is compared with that of a step of the course model, which writes some of them.

    python tools/measure_constraints.py 0 10000         about 12 minutes; or in slices, 0 2500, 2500 5000, ...
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

import regex
import torch
from jsonschema import Draft202012Validator, FormatChecker

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "decode")]

from random_languages import random_pattern  # noqa: E402
from random_schemas import random_schema, with_definitions  # noqa: E402

from llmcourse.decode.constrain import Constraint  # noqa: E402
from llmcourse.decode.json_schema import compile_schema  # noqa: E402
from llmcourse.decode.regular import compile_regular  # noqa: E402
from llmcourse.generate import prefill  # noqa: E402
from llmcourse.pretrained import load_course_model  # noqa: E402
from llmcourse.sampling import choose_next  # noqa: E402

FREE, MORE = 64, 24


def language(seed: int):
    """Return an automaton, a judge of its texts, and whether it is an expression or a schema."""
    rng = random.Random(seed)
    if seed % 2:
        pattern = random_pattern(rng)
        judge = regex.compile(pattern, regex.ASCII)
        return compile_regular(pattern), lambda text: bool(judge.fullmatch(text, timeout=1)), "expression"
    schema = with_definitions(random_schema(rng))
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return compile_schema(schema), lambda text: validator.is_valid(json.loads(text)), "schema"


def verdict(constraint: Constraint, ids: list[int], judge) -> str:
    """Return what became of the written ids."""
    if not constraint.is_complete(ids):
        return "cut off"
    try:
        text = constraint.tokenizer.decode_bytes(i for i in ids if i != constraint.end_id).decode()
        return "valid" if judge(text) else "INVALID"
    except TimeoutError:
        return "not judged"


def write(constraint: Constraint, room: int | None, seed: int, seconds: dict, model=None) -> list[int]:
    """Return what random logits, or the course model, write under the constraint."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer, ids = constraint.tokenizer, torch.tensor([constraint.tokenizer.encode("\n")])
    start = ids.shape[-1]
    process = constraint.after(start, room)
    logits, step = prefill(model, ids) if model else (None, None)
    for _ in range(FREE if room is None else room):
        if model is None:
            logits = 5 * torch.randn(1, tokenizer.vocab_size, generator=generator)
        known = len(constraint._rows)
        began = time.perf_counter()
        masked = process(ids, logits)
        kind = "mask of a new state" if len(constraint._rows) > known else "mask of a known state"
        seconds.setdefault(kind, []).append(time.perf_counter() - began)
        new = choose_next(masked, generator=generator)
        ids = torch.cat([ids, new[:, None]], dim=-1)
        if new.item() == constraint.end_id:
            break
        if model is not None:
            began = time.perf_counter()
            logits = step(new)
            seconds.setdefault("step of the course model", []).append(time.perf_counter() - began)
    return ids[0, start:].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--model", type=int, default=50, help="how many the course model writes as well")
    options = parser.parse_args()
    model, tokenizer = load_course_model()
    counts, seconds, failures = Counter(), {}, []
    for seed in range(options.first, options.last):
        began = time.perf_counter()
        automaton, judge, kind = language(seed)
        constraint = Constraint(automaton, tokenizer)
        seconds.setdefault("automaton and tables", []).append(time.perf_counter() - began)
        writers = [None, model] if seed - options.first < options.model else [None]
        for writer in writers:
            for room in (None, random.Random(seed).randint(1, MORE)):
                room = room and room + int(constraint.distances()[0])
                ids = write(constraint, room, seed, seconds, writer)
                result = verdict(constraint, ids, judge)
                counts[
                    kind, "free" if room is None else "within", "model" if writer else "random", result
                ] += 1
                if result == "INVALID" or (room is not None and result == "cut off"):
                    failures.append((seed, room, tokenizer.decode(ids)))
    for row, count in sorted(counts.items()):
        print(*row, count, sep="\t")
    for kind, row in seconds.items():
        print(f"{kind}: median {1e3 * median(row):.3f} ms of {len(row)}")
    print("failures:", failures[:10] or "none")


if __name__ == "__main__":
    main()
