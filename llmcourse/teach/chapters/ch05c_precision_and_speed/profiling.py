"""What torch's profiler says of a computation: its memory, allocation by allocation, and where its time goes."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor


def memory_curve(compute: Callable[[], object]) -> Tensor:
    """Return (N,): the bytes held after each of the N allocations and releases of `compute()`, on the CPU.

    It begins at 0, whatever was held before.

    >>> curve = memory_curve(lambda: torch.ones(1000, dtype=torch.float64) * 2)
    >>> curve.max().item() >= 16_000
    True
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        compute()
    with TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_bytes())["traceEvents"]
    moves = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    return torch.tensor([size for _, size in moves], dtype=torch.float64).cumsum(0)


def time_shares(step: Callable[[], object], groups: dict[str, str], repeats: int) -> dict[str, float]:
    """Return what percent of the CPU time of `repeats` steps each group of operations takes, and "the rest".

    A group is a pattern that names of torch's operations begin with, after "aten::". One step goes before.

    >>> shares = time_shares(lambda: torch.ones(9, 9) @ torch.ones(9, 9), {"products": "mm"}, repeats=2)
    >>> list(shares), round(sum(shares.values()))
    (['products', 'the rest'], 100)
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            step()
    times = dict.fromkeys([*groups, "the rest"], 0.0)
    for event in profiler.key_averages():
        found = (group for group, names in groups.items() if re.match(f"aten::({names})", event.key))
        times[next(found, "the rest")] += event.self_cpu_time_total
    return {group: 100 * value / sum(times.values()) for group, value in times.items()}
