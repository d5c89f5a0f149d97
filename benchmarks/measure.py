"""Alternate two functions and compare their times.

A ratio of two times that were taken side by side says the same on a slow and on a fast machine,
and on a busy one most of the noise hits both sides alike. Absolute times do neither.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import transformers
from tqdm.auto import tqdm

from llmcourse.runtime import someone_is_watching

Measure = Callable[[], float]  # does the work and returns its seconds


@dataclass(frozen=True)
class Result:
    """One line of the table: `ours` and `theirs` are seconds, one number a round.

    `amount` and `unit` turn seconds into a speed, such as 768 "tokens"; None shows milliseconds.
    """

    group: str
    what: str
    ours: list[float]
    theirs: list[float]
    note: str
    amount: float | None = None
    unit: str = ""

    @property
    def ratios(self) -> list[float]:
        """Our time over their time, one ratio a round: below 1 ours is faster."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        """Say who is faster, if all rounds agree on it."""
        low, high = min(self.ratios), max(self.ratios)
        return "ours faster" if high < 1 else "ours slower" if low > 1 else "no clear difference"

    def show(self, seconds: list[float]) -> str:
        """Return the median of `seconds` as text: a speed if there is an amount, else a time."""
        middle = median(seconds)
        if self.amount is not None:
            return f"{round(self.amount / middle):,} {self.unit}/s"
        return f"{1000 * middle:.3g} ms" if middle < 1 else f"{middle:.3g} s"

    def cells(self) -> list[str]:
        """Return the cells of the table: what, ours, theirs, ratio, spread, verdict."""
        digits = 2 if median(self.ratios) >= 0.1 else 4
        spread = f"{min(self.ratios):.{digits}f}-{max(self.ratios):.{digits}f}"
        ratio = f"{median(self.ratios):.{digits}f}"
        return [self.what, self.show(self.ours), self.show(self.theirs), ratio, spread, self.verdict]


@dataclass(frozen=True)
class Memory(Result):
    """A line about megabytes instead of seconds."""

    @property
    def verdict(self) -> str:
        """Say who needs less, if all rounds agree on it."""
        return super().verdict.replace("faster", "smaller").replace("slower", "larger")

    def show(self, megabytes: list[float]) -> str:
        """Return the median as text."""
        return f"{median(megabytes):,.0f} MB"


def per_call(function: Callable[[], object], calls: int = 1) -> Measure:
    """Return a function that calls `function` `calls` times and returns the seconds of one call."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)

    def measure() -> float:
        wait()
        began = time.perf_counter()
        for _ in range(calls):
            function()
        wait()
        return (time.perf_counter() - began) / calls

    return measure


def cpu_seconds(function: Callable[[], object]) -> Measure:
    """Return a function that calls `function` and returns the seconds that the processor worked on it.

    With one thread that is the time of the clock on a machine that has nothing else to do.
    """

    def measure() -> float:
        began = time.process_time()
        function()
        return time.process_time() - began

    return measure


def alternate(a: Measure, b: Measure, rounds: int) -> tuple[list[float], list[float]]:
    """Warm both up, then measure a, b, a, b, ...; return the seconds of a and those of b."""
    a(), b()
    bar = tqdm(range(rounds), unit="round", leave=False, disable=not someone_is_watching())
    pairs = [(a(), b()) for _ in bar]
    return [first for first, _ in pairs], [second for _, second in pairs]


def machine(threads: int, device: str = "cpu") -> str:
    """Describe the machine in words: the processor's model and the versions, no names or paths."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")
        ]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device == "cuda":
        processor = f"{torch.cuda.get_device_name()}, beside {processor}"
    return f"{processor}; {threads} threads; Python {platform.python_version()}, {versions}"
