"""Compare this tree with an earlier commit of it: `python -m benchmarks.against 19f47f0`.

Two processes, one for each tree, do the same work in turn, so a busy machine slows both. With
`--notebooks`, both trees' notebooks then run under nbval with two workers, one tree after the other.
The table goes to benchmarks/RESULTS_AGAINST.md.
"""

import argparse
import contextlib
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.measure import Result, machine
from llmcourse.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
WORK = {  # name: (set-up, one round); only names that both trees have
    "train: Llama of 0.8 M parameters, 20 steps": (
        "from llmcourse.model import GPT, ModelConfig\nfrom llmcourse.training import train\n"
        "torch.manual_seed(0)\nmodel = GPT(ModelConfig.llama(1024, context_length=128, d_model=128))\n"
        "ids = torch.randint(1024, (8, 129))\nbatches = [(ids[:, :-1], ids[:, 1:])]",
        "for _ in train(model, batches, steps=20, lr=1e-4): pass",
    ),
    "train: GPT-2 of 0.2 M parameters, 40 steps": (
        "from llmcourse.model import GPT, ModelConfig\nfrom llmcourse.training import train\n"
        "torch.manual_seed(0)\nmodel = GPT(ModelConfig.gpt2(65, context_length=64, d_model=64, n_layers=4))\n"
        "ids = torch.randint(65, (12, 65))\nbatches = [(ids[:, :-1], ids[:, 1:])]",
        "for _ in train(model, batches, steps=40, lr=1e-4): pass",
    ),
    "generate: 256 tokens, batch of 1": (
        "from llmcourse.pretrained import load_course_model\nfrom llmcourse.generate import generate\n"
        "model, _ = load_course_model()\nprompt = torch.arange(100, 108)[None]",
        "generate(model, prompt, min(256, model.config.context_length - 8), temperature=0)",
    ),
    "generate: 200 tokens, batch of 8": (
        "from llmcourse.pretrained import load_course_model\nfrom llmcourse.generate import generate\n"
        "model, _ = load_course_model()\nprompt = torch.arange(100, 164).view(8, 8)",
        "generate(model, prompt, min(200, model.config.context_length - 8), temperature=0)",
    ),
    "race: 20 steps of the fast recipe": (
        "try: from llmcourse.tune import recipes\nexcept ImportError: from llmcourse import recipes\n"
        "follow = getattr(recipes, 'train_recipe', None) or recipes.follow\n"
        "recipe = recipes.FAST.change(steps=20)\nids = torch.randint(65, (100_000,))",
        "for _ in follow(recipe, recipe.build(65, 0), ids, 0): pass",
    ),
    "race: 6 steps of the strong recipe": (
        "try: from llmcourse.tune import recipes\nexcept ImportError: from llmcourse import recipes\n"
        "follow = getattr(recipes, 'train_recipe', None) or recipes.follow\n"
        "recipe = recipes.STRONG.change(steps=6, warmup_steps=2)\nids = torch.randint(65, (100_000,))",
        "for _ in follow(recipe, recipe.build(65, 0), ids, 0): pass",
    ),
    "BPE: 400 merges of the bundled text, and encoding it": (
        "try: from llmcourse.data.sources.plays import load_plays\n"
        "except ImportError: from llmcourse.data.corpora import load_plays\n"
        "from llmcourse.tokenizer import BPETokenizer\ntext = load_plays(quiet=True)[0].text",
        "BPETokenizer.train([text], vocab_size=656).encode(text)",
    ),
}
WORKER = """
import sys, time, torch
torch.set_num_threads(1)
work, scope, clock = {work!r}, {{}}, time.{clock}
for line in sys.stdin:
    name = line.strip()
    if name not in scope:
        scope[name] = dict(torch=torch)
        exec(work[name][0], scope[name])
    began = clock()
    exec(work[name][1], scope[name])
    print("seconds", clock() - began, flush=True)
"""


class Tree:
    """A process that works with the package of one tree, and measures by a clock of the module `time`."""

    def __init__(self, folder: Path, work: dict = WORK, clock: str = "perf_counter"):
        self.environment = {**os.environ, **QUIET, "PYTHONPATH": str(folder)}
        self.folder = folder
        command = [sys.executable, "-c", WORKER.format(work=work, clock=clock)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self.process = subprocess.Popen(command, cwd=folder, env=self.environment, **pipes)

    def seconds(self, name: str) -> float:
        """Do one round of the work `name` and return its seconds."""
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            if line.startswith("seconds"):
                return float(line.split()[1])
        raise RuntimeError(f"{name!r} failed in {self.folder}: see its error above")

    def notebooks(self) -> float:
        """Run the tree's notebooks under nbval with two workers; return the seconds."""
        command = [sys.executable, "-m", "pytest", "-c", "tests/nbval.ini", "--rootdir", ".", "--nbval"]
        command += ["--nbval-current-env", "-q", "-n", "2", "--dist", "loadfile", "notebooks"]
        inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment | inline, capture_output=True, encoding="utf-8"
        )
        print(done.stdout.strip().splitlines()[-1], flush=True)  # an older tree may differ on this processor
        return time.perf_counter() - began


@contextlib.contextmanager
def trees(commit: str, **options) -> Iterator[tuple[Tree, Tree]]:
    """Two processes, one with this tree and one with that of `commit`; `options` are those of `Tree`."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", folder, commit], check=True)
        try:
            pair = Tree(ROOT, **options), Tree(Path(folder), **options)
            yield pair
            for tree in pair:
                tree.process.stdin.close()
                tree.process.wait()
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


def compare(commit: str, rounds: int, notebooks: bool) -> list[Result]:
    """Return one row for each work, this tree as `ours` and that of `commit` as `theirs`."""
    results = []
    with trees(commit) as (here, there):
        for name in WORK:
            here.seconds(name), there.seconds(name)  # warm up
            pairs = [(here.seconds(name), there.seconds(name)) for _ in range(rounds)]
            results.append(Result("against", name, *map(list, zip(*pairs, strict=True)), ""))
            print(*results[-1].cells(), sep=" | ", flush=True)
        if notebooks:
            pair = [here.notebooks()], [there.notebooks()]
            results.append(Result("against", "all notebooks under nbval, 2 workers", *pair, ""))
            print(*results[-1].cells(), sep=" | ", flush=True)
    return results


def report(commit: str, results: list[Result]) -> str:
    """Return the table as Markdown."""
    rows = "\n".join(f"| {' | '.join(result.cells()[:5])} | {len(result.ours)} |" for result in results)
    return f"""# This tree against an earlier commit

`python -m benchmarks.against {commit} --notebooks`, {datetime.date.today().isoformat()}. {machine(1)}.
Time here / time at {commit}, the median of rounds that alternate; below 1 this tree is faster.

| what | here | {commit} | ratio | spread | rounds |
|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--notebooks", action="store_true", help="also run all notebooks of both trees")
    options = parser.parse_args()
    results = compare(options.commit, options.rounds, options.notebooks)
    worst = max(median(result.ratios) for result in results)
    with atomic_write(ROOT / "benchmarks" / "RESULTS_AGAINST.md") as temporary:
        temporary.write_text(report(options.commit, results), encoding="utf-8")
    print(f"largest ratio: {worst:.2f}")


if __name__ == "__main__":
    main()
