"""Run the benchmarks, print the table as it grows, and write benchmarks/RESULTS.md (RESULTS_GPU.md)."""

import argparse
import datetime
import os
import time
from pathlib import Path

import torch
import transformers

from benchmarks import decoding, finetune, gpu, int8, layers, measure, models, race, search, text
from llmcourse.support.files import atomic_write

GROUPS = {
    "attention": layers.attention,
    "loss": layers.loss,
    "optimizer": layers.optimizer,
    "training": models.training,
    "generation": models.generation,
    "beam search": search.beam_search,
    "decoding": decoding.decoding,
    "speculation": decoding.speculation,
    "int8": int8.int8,
    "finetune": finetune.finetune,
    "tokenizer": text.tokenizer,
    "cleaning": text.cleaning,
    "import": text.start,
    "race": race.race,
}
TABLES = {"cpu": (GROUPS, "RESULTS.md"), "cuda": (gpu.GROUPS, "RESULTS_GPU.md")}
WIDTHS = (34, 18, 18, 6, 13, 20)
HEAD = ("what", "ours", "theirs", "ratio", "spread", "meaning")


def print_row(cells) -> None:
    """Print one line of the table."""
    print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)


def report(results: list[measure.Result], device: str, threads: int, rounds: int) -> str:
    """Return the table as Markdown."""
    command = "python -m benchmarks" + (" --device cuda" if device == "cuda" else "")
    lines = [
        "# Speed, as ratios" + (", on a GPU" if device == "cuda" else ""),
        "",
        f"Measured on {datetime.date.today()} by `{command}`: {measure.machine(threads, device)}.",
        "",
        f"Both sides alternate in one run, {rounds} rounds of ours, theirs after a warm-up of each,",
        "with the same number of threads. The ratio is our time over their time, the median of the",
        "rounds: below 1 ours is faster. The spread is the smallest and the largest ratio of a round.",
        "Before the clock starts, both sides are checked to compute the same. Ours and theirs are medians.",
        "",
        "| what | ours | theirs | ratio median | spread | meaning |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for result in results:
        *cells, verdict = result.cells()
        lines.append(f"| {' | '.join(cells)} | {verdict}: {result.note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the options, run, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=TABLES, default="cpu")
    parser.add_argument("--only", choices=GROUPS, help="run one group; RESULTS.md stays as it is")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for both sides")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of ours, theirs (at least 5)")
    parser.add_argument("--no-write", action="store_true", help="do not write RESULTS.md")
    options = parser.parse_args()
    groups, file_name = TABLES[options.device]
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, and torch sees none")
    if options.rounds < 5 or options.threads < 1:
        parser.error("--rounds must be at least 5 and --threads at least 1")
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # ours has one thread there, so theirs has one
    began = time.perf_counter()
    print(measure.machine(options.threads, options.device))
    print_row(HEAD)
    results = []
    for name in [options.only] if options.only else groups:
        for result in groups[name](options.rounds):
            results.append(result)
            print_row(result.cells())
    print(f"{time.perf_counter() - began:.0f} seconds")
    if not options.only and not options.no_write:
        path = Path(__file__).with_name(file_name)
        with atomic_write(path) as temporary:
            temporary.write_text(
                report(results, options.device, options.threads, options.rounds), encoding="utf-8"
            )
        print(f"wrote {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
