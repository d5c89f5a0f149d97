"""Kill `llmcourse finetune` at random moments and run it again: the model must be the same to the bit.

    python tools/kill_finetune.py                   # 30 kills (SIGKILL), in chains of up to three on one folder
    python tools/kill_finetune.py --kills 5 --seed 1

A small table, a small encoder with random weights, and 16 steps. The command runs once to its end; then it
is started, killed after a random part of that time (half of the times in its last quarter, where the model
is exported), perhaps killed again, and run to its end in the same
folder. All files of the two folders are compared by their sha256. Each command is a process of its own,
forked from one that has imported the packages: so a kill falls into the run, and not into the imports.
Prints a line for each chain, and how many kills came at which stage; fails at the first difference. POSIX.
"""

import argparse
import collections
import contextlib
import csv
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from llmcourse import cli
from llmcourse.data.cards import file_digest
from llmcourse.data.sources.encoder import stand_in_encoder

OPTIONS = ("--epochs", "2", "--batch-size", "16", "--frozen-layers", "1", "--max-length", "24")


def make_inputs(folder: Path) -> list[str]:
    """Write a table and an encoder; return the command without --out."""
    rng, words = random.Random(0), {"good": ("warm", "fresh", "clever"), "bad": ("dull", "stale", "clumsy")}
    with (folder / "films.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(170):
            name = rng.choice(sorted(words))
            writer.writerow([f"{rng.choice(words[name])} {rng.choice(words[name])} {i}", name])
    (folder / "encoder").mkdir()
    for name, content in stand_in_encoder(d_model=24, n_layers=2).items():
        (folder / "encoder" / name).write_bytes(content)
    return ["finetune", str(folder / "films.csv"), "--encoder", str(folder / "encoder"), *OPTIONS]


def run(command: list[str], out: Path, seconds: float = 600.0) -> bool:
    """Run the command in a process of its own; kill it after `seconds`. Return whether it came to its end.

    Raises RuntimeError if it failed.
    """
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w", encoding="utf-8") as silent, contextlib.redirect_stdout(silent):
            code = cli.main([*command, "--out", str(out)])
        os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status != 0:
                raise RuntimeError(f"the command ended with the status {status}")
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


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
        torch.set_num_threads(1)  # a process with threads cannot be forked
        cli.main([*command, "--out", str(Path(folder, "first"))])
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
                ended = run(
                    command,
                    out,
                    seconds=rng.choice((rng.uniform(0.02, 1.0), rng.uniform(0.75, 1.05))) * whole,
                )
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
