"""Measure what fewer bits cost, for chapter 8a: data/compression/quantization.csv.

    python tools/measure_compression.py          # all runs; resumes where it stopped
    python tools/measure_compression.py --summary  # the contest, from what is stored

- rounding to nearest, for 8, 4, 3 and 2 bits and a scale for each tensor, row or group;
- the contest, at equal bytes: rounding, GPTQ, training with rounded weights (QAT), the same with the model
  of floats as a teacher, and the control, as many further steps in float, then rounded or GPTQ. The last
  four clip the ranges of groups; rounding and GPTQ are measured with and without.

Blocks are quantized, the embedding stays in float16. A seed draws the calibration text of GPTQ, or the
batches of training. One thread; about 25 minutes of processor time.
"""

import argparse
import csv
import tempfile
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from llmcourse.compress.distill import distillation_loss, divergences
from llmcourse.compress.gptq import quantize_gptq
from llmcourse.compress.qat import finish_qat, prepare_qat
from llmcourse.compress.rounding import quantize_model
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.significance import paired_comparison
from llmcourse.losses import next_token_loss
from llmcourse.packed import BITS, Scheme
from llmcourse.pretrained import load_course_model, save_model
from llmcourse.runtime import fast_dtype
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import END_OF_TEXT
from llmcourse.training import train

FOLDER = Path(__file__).resolve().parents[1] / "data" / "compression"
PATH, BLOCKS = FOLDER / "quantization.csv", FOLDER / "quantization_blocks.csv"
COLUMNS = ("method", "scheme", "seed", "steps", "bytes", "held_out", "training", "kl")
INT2, INT3 = Scheme(2, 64, symmetric=False), Scheme(3, "row", symmetric=False)
STEPS, LR, BATCH = 150, 2e-4, 8
CALIBRATION = 128  # rows of GPTQ, each as long as the context
WINDOWS, PER_BLOCK = 100, 4  # windows of each text that are evaluated, and how many make a block of the tests


def float_steps(model, rows, seed, loss=next_token_loss):
    """Train `model` in place on the training text, and return it."""
    torch.manual_seed(seed)
    batches = TokenBatches(rows[0], BATCH, model.config.context_length, seed)
    options = dict(lr=LR, schedule=warmup_linear(STEPS, 10), dtype=fast_dtype())
    for _ in train(model, batches, steps=STEPS, loss=loss, **options):
        pass
    return model.eval()


def windows(row: torch.Tensor, context_length: int) -> torch.Tensor:
    """Return WINDOWS rows of a text (WINDOWS, T + 1), evenly spread over it and not overlapping."""
    starts = torch.linspace(0, len(row) - context_length - 1, WINDOWS).long()
    return row[starts[:, None] + torch.arange(context_length + 1)]


def read_table(path: Path) -> list[list[str]]:
    """Return the rows of a stored table, without its head; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


class Measured:
    """The course model, its texts, and the rows of the tables; a run that is there is not made again."""

    def __init__(self):
        self.model, self.tokenizer = load_course_model("pretrained")
        self.end_id = self.tokenizer.special_tokens[END_OF_TEXT]
        parts = split_by_title(load_plays())[:2]
        self.rows = [pack([self.tokenizer.encode(play.text) for play in part], self.end_id) for part in parts]
        held_out, training = (windows(row, self.model.config.context_length) for row in self.rows[::-1])
        self.texts = {"held_out": held_out, "training": training}
        self.n_bytes = {
            name: torch.tensor([len(self.tokenizer.decode_bytes(row[1:].tolist())) for row in text]).view(
                -1, PER_BLOCK
            )
            for name, text in self.texts.items()
        }
        with torch.no_grad():
            self.logits = torch.cat([self.model(part[:, :-1]) for part in held_out.split(PER_BLOCK)])
        self.tables = {path: read_table(path) for path in (PATH, BLOCKS)}

    @torch.no_grad()
    def evaluate(self, model) -> tuple[dict[str, torch.Tensor], float]:
        """Return (the bits of each block of each text, (blocks,); KL from the float model in nats per token)."""
        bits, divergence = {}, []
        for name, text in self.texts.items():
            losses = []
            for part, expected in zip(text.split(PER_BLOCK), self.logits.split(PER_BLOCK), strict=True):
                logits = model(part[:, :-1]).flatten(0, 1)
                losses.append(F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
                if name == "held_out":
                    divergence.append(divergences(logits, expected.flatten(0, 1)).mean())
            bits[name] = torch.stack(losses) / torch.tensor(2.0).log()
        return bits, torch.stack(divergence).mean().item()

    def add(self, method: str, scheme, seed, steps: int, make) -> None:
        """Measure the model that `make()` returns, unless that is done, and write both tables."""
        key = [method, str(scheme), str(seed)]
        if any(row[:3] == key for row in self.tables[PATH]):
            return
        model = make()
        bits, divergence = self.evaluate(model)
        with tempfile.TemporaryDirectory() as folder:
            save_model(folder, model, self.tokenizer)
            size = (Path(folder) / "model.safetensors").stat().st_size
        means = [f"{(bits[n].sum() / self.n_bytes[n].sum()).item():.5f}" for n in self.texts]
        self.tables[PATH].append([*key, str(steps), str(size), *means, f"{divergence:.6f}"])
        for name in self.texts:
            each = bits[name] / self.n_bytes[name].sum(1)
            self.tables[BLOCKS].append([*key, name, *(f"{value:.4f}" for value in each.tolist())])
        header = [*COLUMNS[:3], "text", *(f"block {i}" for i in range(WINDOWS // PER_BLOCK))]
        for (path, table), names in zip(self.tables.items(), (COLUMNS, header), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([names, *table])
        print(*self.tables[PATH][-1], flush=True)

    def calibration(self, seed: int) -> torch.Tensor:
        """Return rows of the training text for GPTQ, (CALIBRATION, T)."""
        T, generator = self.model.config.context_length, torch.Generator().manual_seed(seed)
        starts = torch.randint(len(self.rows[0]) - T, (CALIBRATION,), generator=generator)
        return self.rows[0][starts[:, None] + torch.arange(T)]

    def options_of_gptq(self, scheme: Scheme, seed: int) -> None:
        """Measure what the order of the columns and more damping do."""
        for name, options in (("act-order", dict(by_activation=True)), ("damping 0.1", dict(damping=0.1))):
            make = partial(quantize_gptq, self.model, self.calibration(seed), scheme, **options)
            self.add(f"GPTQ, {name}", scheme, seed, 0, make)

    def contest(self, scheme: Scheme, seed: int, trained: bool = True) -> None:
        """Measure every method of one scheme and seed."""
        model, rows, text = self.model, self.rows, self.calibration(seed)

        @cache
        def longer():
            return float_steps(prepared(), rows, seed)

        def prepared():
            return load_course_model("pretrained")[0]

        def qat(loss=next_token_loss):
            return finish_qat(float_steps(prepare_qat(model, scheme, clip=True), rows, seed, loss))

        self.add("GPTQ", scheme, seed, 0, lambda: quantize_gptq(model, text, scheme))
        self.add("GPTQ, clipped", scheme, seed, 0, lambda: quantize_gptq(model, text, scheme, clip=True))
        if trained:
            self.add("QAT", scheme, seed, STEPS, qat)
            self.add("float steps", "float16", seed, STEPS, longer)
            rounded = partial(quantize_model, scheme=scheme, clip=True)
            self.add("float steps, rounding", scheme, seed, STEPS, lambda: rounded(longer()))
            by_gptq = partial(quantize_gptq, rows=text, scheme=scheme, clip=True)
            self.add("float steps, GPTQ", scheme, seed, STEPS, lambda: by_gptq(longer()))
            teach = distillation_loss(model, temperature=1.0, share=1.0)
            self.add("QAT, teacher", scheme, seed, STEPS, lambda: qat(teach))


def blocks(table: list[list[str]], method: str, scheme: str, text: str) -> np.ndarray:
    """Return the bits per byte of each block for each seed, (seeds, blocks)."""
    return np.array([row[4:] for row in table if row[:2] + row[3:4] == [method, scheme, text]], dtype=float)


def won_back(runs: np.ndarray, rounded: np.ndarray, floats: np.ndarray, resamples: int = 5000) -> np.ndarray:
    """Return (share, low, high): how much of what rounding lost a method wins back, with its 95 % interval.

    Seeds and blocks of text are both drawn anew, with replacement.
    """
    rng, shares = np.random.default_rng(0), []
    for i in range(resamples + 1):
        seeds, places = np.arange(len(runs)), np.arange(runs.shape[1])
        if i:  # the first is the sample itself
            seeds, places = (
                rng.integers(len(seeds), size=len(seeds)),
                rng.integers(len(places), size=len(places)),
            )
        lost = (rounded - floats)[:, places].mean()
        shares.append(1 - (runs[seeds][:, places].mean() - floats[:, places].mean()) / lost)
    return np.array([shares[0], *np.quantile(shares[1:], [0.025, 0.975])])


def p_value(runs: np.ndarray, others: np.ndarray) -> float:
    """Return the p-value of runs (seeds, blocks) against others: signs of whole blocks of text are flipped."""
    others = np.broadcast_to(others, runs.shape)
    places = np.tile(np.arange(runs.shape[1]), len(runs))
    return paired_comparison(runs.flatten(), others.flatten(), groups=places.tolist()).p_value


def summary(table: list[list[str]]) -> list[str]:
    """Return the contest as lines of a table: loss over float, share won back, and what QAT is better than."""
    lines = [
        "| scheme | method | seeds | held out | won back | p against rounding | training text | won back | p |"
    ]
    lines.append("|" + "---|" * 9)
    methods = list(dict.fromkeys(row[0] for row in table if row[1] in (str(INT2), str(INT3))))
    for scheme, method in product((str(INT2), str(INT3)), methods):
        cells = []
        for text in ("held_out", "training"):
            runs, rounded = blocks(table, method, scheme, text), blocks(table, "rounding", scheme, text)
            floats = blocks(table, "float", "float16", text)
            if not len(runs):
                break
            share = "{:.0%} ({:.0%} to {:.0%})".format(*won_back(runs, rounded, floats))
            if p_value(rounded, floats) > 0.01:
                share = "nothing to win"
            told = ("", "") if method == "rounding" else (share, f"{p_value(runs, rounded):.4f}")
            cells += [f"{runs.mean() - floats.mean():+.4f}", *told]
        else:
            lines.append(f"| {scheme} | {method} | {len(runs)} | " + " | ".join(cells) + " |")
    return [*lines, "", *rivals(table)]


def rivals(table: list[list[str]]) -> list[str]:
    """Return QAT against what could have been as good, seed by seed where both were trained."""
    lines = ["| QAT, int2, against | held out | p | training text | p |", "|---|---|---|---|---|"]
    for rival in ("GPTQ", "GPTQ, clipped", "float steps, rounding", "float steps, GPTQ", "QAT, teacher"):
        cells = []
        for text in ("held_out", "training"):
            both = [blocks(table, method, str(INT2), text) for method in ("QAT", rival)]
            runs, others = (part[: min(map(len, both))] for part in both)  # the seeds that both have
            cells += [f"{runs.mean() - others.mean():+.4f}", f"{p_value(runs, others):.4f}"]
        lines.append(f"| {rival} | " + " | ".join(cells) + " |")
    return lines


def main(seeds: list[int]) -> None:
    """Measure what is missing."""
    torch.set_num_threads(1)
    measured = Measured()
    model = measured.model
    measured.add("float", "float16", "", 0, lambda: model)
    for scheme in (INT2, INT3):
        measured.add("rounding", scheme, "", 0, partial(quantize_model, model, scheme))
        measured.add("rounding, clipped", scheme, "", 0, partial(quantize_model, model, scheme, clip=True))
    for seed in seeds[:3]:
        measured.contest(INT2, seed)
    for bits, group, symmetric in product(BITS, (64, "row", "tensor"), (True, False)):
        if symmetric or (bits < 8 and group != "tensor"):
            scheme = Scheme(bits, group, symmetric)
            measured.add("rounding", scheme, "", 0, partial(quantize_model, model, scheme))
    for seed in seeds[:3]:
        measured.contest(INT3, seed, trained=False)
        measured.options_of_gptq(INT2, seed)
    for seed in seeds:
        measured.contest(INT2, seed)
    for seed in seeds[:3]:
        measured.contest(INT3, seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--summary", action="store_true", help="print the contest from what is stored")
    options = parser.parse_args()
    if options.summary:
        print(*summary(read_table(BLOCKS)), sep="\n")
    else:
        main(options.seeds)
