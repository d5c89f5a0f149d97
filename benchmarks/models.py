"""Training and generation against transformers, with models of the same weights."""

import copy
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.measure import Memory, Result, alternate, per_call
from llmcourse.convert import to_transformers
from llmcourse.data.batches import TokenBatches
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.training import train
from llmcourse.tune.costs import flops_per_token, measure_matmul_peak

WARM_UP, STEPS, LR = 5, 30, 1e-3
SIZES = {
    "training, small": (12, ModelConfig.gpt2(256, context_length=64)),
    "training, as in chapter 03c": (4, ModelConfig.gpt2(2048, context_length=128, n_layers=2)),
}
WRITERS = {
    "generation, small": ModelConfig.gpt2(256, context_length=512),
    "generation": ModelConfig.gpt2(2048, context_length=512, d_model=192, n_heads=6, n_layers=4),
}
MEMORY_STEPS = WARM_UP + 3
MEMORY = ModelConfig.gpt2(2048, context_length=128, d_model=384, n_heads=6, n_layers=6)


def seconds_a_step(stamps: list[float]) -> float:
    """Return the mean seconds of a step from the clock at each step's end, the first ones left out."""
    return (stamps[-1] - stamps[WARM_UP - 1]) / STEPS


class Stamps(TrainerCallback):
    """Note the clock at the end of each step."""

    def __init__(self):
        self.stamps = []

    def on_step_end(self, *arguments, **options):
        """Called by the Trainer after an update."""
        self.stamps.append(time.perf_counter())


def training(rounds: int) -> Iterator[Result]:
    """A whole step: data, forward, backward, clipping, update, bookkeeping; start-up is left out."""
    for what, (batch_size, config) in SIZES.items():
        start = GPT(config)
        their_start = to_transformers(start)
        token_ids = torch.randint(config.vocab_size, (100_000,))
        example = token_ids[None, : config.context_length]
        torch.testing.assert_close(start(example), their_start(example).logits)
        rows = token_ids[: len(token_ids) // config.context_length * config.context_length]
        windows = [dict(input_ids=row, labels=row) for row in rows.view(-1, config.context_length)]

        def ours(start=start, token_ids=token_ids, batch_size=batch_size, config=config):
            batches = TokenBatches(token_ids, batch_size, config.context_length)
            steps = train(copy.deepcopy(start), batches, steps=WARM_UP + STEPS, lr=LR)
            return seconds_a_step([time.perf_counter() for _ in steps])

        def theirs(start=their_start, windows=windows, batch_size=batch_size):
            return trainer_seconds(copy.deepcopy(start), windows, batch_size)

        note = f"{start.n_parameters() / 1e6:.1f} M parameters, {batch_size} x {config.context_length} tokens"
        note += " a step, both with torch's fused AdamW, each with its own data path; goal 0.80"
        tokens = batch_size * config.context_length
        yield Result("training", what, *alternate(ours, theirs, rounds), note, tokens, "tokens")

        def peak(tokens=tokens, config=config):
            return tokens * flops_per_token(config, causal=True) / measure_matmul_peak(seconds=0.2)

        seconds, ideal = alternate(ours, peak, rounds)
        share = median(b / a for a, b in zip(seconds, ideal, strict=True))
        note = f"theirs is a product of 1024 x 1024 matrices, and nothing else: {share:.0%} of its FLOP/s"
        yield Result("training", f"{what}, FLOP/s", seconds, ideal, note, tokens, "tokens")
    if importlib.util.find_spec("resource") is None:  # not on Windows
        print("training, peak memory: not measured on this system")
        return
    megabytes = [(peak_megabytes("ours"), peak_megabytes("theirs")) for _ in range(3)]
    note = f"{GPT(MEMORY).n_parameters() / 1e6:.1f} M parameters, 8 x 128 tokens a step; the peak of a"
    note += " process of its own, less what it held with the model built, 3 rounds"
    yield Memory("training", "training, peak memory", *map(list, zip(*megabytes, strict=True)), note)


def trainer_seconds(model, windows, batch_size: int, steps: int = WARM_UP + STEPS, **options) -> float:
    """Train with transformers' Trainer and return the seconds of a step, for the usual `steps`."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=LR,
            lr_scheduler_type="constant",
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            **dict(use_cpu=True) | options,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            eval_strategy="no",
            logging_steps=steps,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        clock = Stamps()
        trainer = Trainer(model, arguments, train_dataset=windows, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return seconds_a_step(clock.stamps)


def peak_megabytes(side: str) -> float:
    """Train in a process of its own and return by how many megabytes its peak grew."""
    command = [sys.executable, "-m", "benchmarks.models", side, str(torch.get_num_threads())]
    return float(
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split()[-1]
    )


def train_and_print_the_peak(side: str) -> None:
    """Do a few steps of training and print the growth of this process's peak in megabytes."""
    import resource  # not on Windows

    torch.manual_seed(0)
    model, token_ids = GPT(MEMORY), torch.randint(MEMORY.vocab_size, (100_000,))
    model = to_transformers(model) if side == "theirs" else model
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if side == "theirs":
        rows = token_ids[: len(token_ids) // 128 * 128].view(-1, 128)
        trainer_seconds(model, [dict(input_ids=row, labels=row) for row in rows], 8, MEMORY_STEPS)
    else:
        list(train(model, TokenBatches(token_ids, 8, 128), steps=MEMORY_STEPS, lr=LR))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit)


def generation(rounds: int) -> Iterator[Result]:
    """256 greedy tokens for one prompt; the tokens of all three ways are equal, or it stops here."""
    new = 256
    for (what, config), length in itertools.product(WRITERS.items(), (8, 256)):
        model = GPT(config).eval()
        their_model = to_transformers(model)
        prompt = torch.randint(config.vocab_size, (1, length))

        def cached(model=model, prompt=prompt):
            return generate(model, prompt, new, temperature=0)

        def uncached(model=model, prompt=prompt):
            return generate(model, prompt, new, temperature=0, use_cache=False)

        def theirs(model=their_model, prompt=prompt):
            ones = torch.ones_like(prompt)
            options = dict(max_new_tokens=new, do_sample=False, use_cache=True, pad_token_id=0)
            return model.generate(prompt, attention_mask=ones, eos_token_id=None, **options)

        tokens = cached()
        assert torch.equal(tokens, uncached()), "the cache changed the tokens"
        assert torch.equal(tokens, theirs()), "transformers wrote other tokens"
        a, b = per_call(cached), per_call(theirs)
        size = f"{model.n_parameters() / 1e6:.1f} M parameters, 256 tokens after {length}"
        note = (
            f"{size}, the same; this small, calls cost more than arithmetic, and ours makes fewer; goal 0.25"
        )
        name = f"{what}, after {length}"
        yield Result("generation", f"{name}, cached", *alternate(a, b, rounds), note, new, "tokens")
        note = f"{size}; theirs is ours without the cache; goal 0.10"
        seconds = alternate(a, per_call(uncached), rounds)
        yield Result("generation", f"{name}, cache against none", *seconds, note, new, "tokens")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    train_and_print_the_peak(sys.argv[1])
