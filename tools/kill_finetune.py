"""Kill `llmcourse finetune` at random moments and run it again: the model must be the same to the bit.

    python tools/kill_finetune.py                   # 30 kills (SIGKILL), in chains of up to three on one folder
    python tools/kill_finetune.py --kills 5 --seed 1

A small table, a small encoder with random weights, and 60 steps. The command runs once to its end; then it
is started, killed after a random part of that time, perhaps killed again, and run to its end in the same
folder. All files of the two folders are compared by their sha256. Prints a line for each chain, and how
many kills came at which stage; fails at the first difference. POSIX only (signals).
"""

import argparse
import collections
import csv
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmcourse.data.cards import file_digest
from llmcourse.data.sources.encoder import stand_in_encoder

OPTIONS = ("--epochs", "3", "--batch-size", "8", "--frozen-layers", "1", "--max-length", "24")


def make_inputs(folder: Path) -> list[str]:
    """Write a table and an encoder; return the command without --out."""
    rng, words = random.Random(0), {"good": ("warm", "fresh", "clever"), "bad": ("dull", "stale", "clumsy")}
    with (folder / "films.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(230):
            name = rng.choice(sorted(words))
            writer.writerow([f"number {i}: {rng.choice(words[name])} and {rng.choice(words[name])}", name])
    (folder / "encoder").mkdir()
    for name, content in stand_in_encoder(d_model=48, n_layers=3).items():
        (folder / "encoder" / name).write_bytes(content)
    where = [str(folder / "films.csv"), "--encoder", str(folder / "encoder"), *OPTIONS]
    return [sys.executable, "-m", "llmcourse.cli", "finetune", *where]


def run(command: list[str], out: Path, seconds: float | None = None) -> bool:
    """Run the command; kill it after `seconds`. Return whether it came to its end; RuntimeError if it failed."""
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        raise RuntimeError(f"the command failed with {process.returncode}: {errors.decode()[-2000:]}")
    return True


def stage(out: Path) -> str:
    """Say how far a killed run had come, by what is in its folder."""
    if (out / "README.md").exists():
        return "finished"
    if not (out / "run.json").exists():
        return "before the folder was claimed"
    if (out / "model.safetensors").exists() or (out / "work" / "export").exists():
        return "during the export"
    return (
        "between checkpoints" if (out / "work" / "checkpoint.pt").exists() else "before the first checkpoint"
    )


def digests(out: Path) -> dict[str, str]:
    """Return the sha256 of every file in a folder."""
    return {
        str(file.relative_to(out)): file_digest(file) for file in sorted(out.rglob("*")) if file.is_file()
    }


def main() -> int:
    """Kill, run again, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, stages, killed, chain = random.Random(options.seed), collections.Counter(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        command = make_inputs(Path(folder))
        began = time.perf_counter()
        run(command, Path(folder, "whole"))
        whole, expected = time.perf_counter() - began, digests(Path(folder, "whole"))
        print(
            f"uninterrupted: {whole:.1f} s, model.safetensors {expected['model.safetensors'][:16]}",
            flush=True,
        )
        while killed < options.kills:
            chain += 1
            out, in_chain, ended = Path(folder, f"run-{chain}"), 0, False
            for _ in range(min(rng.randint(1, 3), options.kills - killed)):
                ended = run(command, out, seconds=rng.uniform(0.25, 1.0) * whole)
                if ended:
                    break
                in_chain += 1
                stages[stage(out)] += 1
            if not ended:
                run(command, out)
            killed += in_chain
            same = digests(out) == expected
            print(
                f"chain {chain}: killed {in_chain} times, {'the same' if same else 'DIFFERENT'}", flush=True
            )
            if not same:
                return 1
    print(f"{killed} kills, all folders the same: {dict(stages)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
