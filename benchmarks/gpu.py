"""The comparisons on a GPU, at sizes that fill one: `python -m benchmarks --device cuda`.

Dimensions: B batch, T time, V vocabulary.
"""

import copy
import time
from collections.abc import Iterator
from functools import partial
from statistics import mean, median

import torch
import torch.nn.functional as F

from benchmarks import layers, race
from benchmarks.layers import copy_with_gradients
from benchmarks.measure import Memory, Result, alternate, per_call
from benchmarks.models import WARM_UP, trainer_seconds
from llmcourse.attention import scaled_dot_product_attention
from llmcourse.convert import to_transformers
from llmcourse.data.batches import TokenBatches
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import AdamW, parameter_groups
from llmcourse.training import train
from llmcourse.tune.costs import flops_per_token, measure_matmul_peak

GPT2_SMALL = ModelConfig.gpt2(50257, context_length=1024, d_model=768, n_heads=12, n_layers=12)
SIZES = {
    "training, GPT-2 small": (16, GPT2_SMALL, torch.bfloat16),
    "training, as in chapter 03c": (4, ModelConfig.gpt2(2048, n_layers=2), torch.float32),
}
STEPS = 30
RACE_SEEDS = 3


def attention(rounds: int) -> Iterator[Result]:
    """Forward and backward, bfloat16, causal: the function that is read against torch's kernel."""
    q, k, v = (torch.randn(8, 12, 1024, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    inputs = tuple(part.requires_grad_() for part in (q, k, v))

    def step(function):
        output = function(*inputs, is_causal=True)
        return torch.autograd.grad(output, inputs, torch.ones_like(output))

    ours, theirs = scaled_dot_product_attention, F.scaled_dot_product_attention
    for mine, other in zip(step(ours), step(theirs), strict=True):
        assert (mine - other).norm() < 0.02 * other.norm(), "the gradients differ"
    a, b = (per_call(partial(step, function), 20) for function in (ours, theirs))
    note = "8 x 12 heads x 1,024 tokens, bfloat16; ours writes and reads all T x T weights; models use the kernel"
    yield Result("attention", "attention function", *alternate(a, b, rounds), note)


def optimizer(rounds: int) -> Iterator[Result]:
    """One step on the parameters of GPT-2 small, with gradients that stay."""
    model = GPT(GPT2_SMALL).cuda()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    ours, theirs = copy_with_gradients(model), copy_with_gradients(model)
    mine = AdamW(parameter_groups(ours, 0.1))
    other = torch.optim.AdamW(parameter_groups(theirs, 0.1), fused=True)
    mine.step(), other.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    a, b = per_call(mine.step, 10), per_call(other.step, 10)
    note = "124 M parameters; theirs is one kernel for many tensors, ours eight for each"
    yield Result("optimizer", "AdamW step, torch fused", *alternate(a, b, rounds), note)
    yield from layers.muon(model, rounds)


def training(rounds: int) -> Iterator[Result]:
    """A whole step, as on a CPU, and its share of the matmul peak (MFU)."""
    for what, (batch_size, config, dtype) in SIZES.items():
        start, T = GPT(config).cuda(), config.context_length
        their_start = to_transformers(copy.deepcopy(start).cpu()).cuda()
        token_ids = torch.randint(config.vocab_size, (400 * T + 1,))
        example = token_ids[None, :T].cuda()
        torch.testing.assert_close(start(example), their_start(example).logits, rtol=1e-3, atol=1e-3)
        windows = [dict(input_ids=row, labels=row) for row in token_ids[: 400 * T].view(-1, T)]
        megabytes: dict[str, list[float]] = {"ours": [], "theirs": []}

        def seconds(side: str, run, megabytes=megabytes) -> float:
            torch.cuda.reset_peak_memory_stats()
            a_step = run()
            megabytes[side].append(torch.cuda.max_memory_allocated() / 2**20)
            return a_step

        def ours(model=start, token_ids=token_ids, batch_size=batch_size, dtype=dtype, T=T):
            steps = train(model, TokenBatches(token_ids, batch_size, T), steps=WARM_UP + STEPS,
                          dtype=dtype)  # fmt: skip
            stamps = [time.perf_counter() for _ in steps]
            return (stamps[-1] - stamps[WARM_UP - 1]) / STEPS

        def theirs(model=their_start, windows=windows, batch_size=batch_size, dtype=dtype):
            options = dict(use_cpu=False, bf16=dtype == torch.bfloat16)
            return trainer_seconds(model, windows, batch_size, **options)

        tokens = batch_size * T
        size = f"{start.n_parameters() / 1e6:.1f} M parameters, {batch_size} x {T} tokens a step, {dtype}".replace(
            "torch.", ""
        )
        a, b = partial(seconds, "ours", ours), partial(seconds, "theirs", theirs)
        a_step, a_theirs = alternate(a, b, rounds)
        note = f"{size}, both with torch's fused AdamW, each with its own data path"
        yield Result("training", what, a_step, a_theirs, note, tokens, "tokens")
        yield Memory(
            "training", f"{what}, peak memory", *megabytes.values(), "allocated on the GPU, same runs"
        )
        size, product_dtype = 8192, torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        peak = [measure_matmul_peak(size, product_dtype, seconds=0.3, device="cuda") for _ in range(rounds)]
        ideal = [tokens * flops_per_token(config, causal=True) / each for each in peak]
        share = median(y / x for x, y in zip(a_step, ideal, strict=True))
        note = (
            f"MFU {share:.1%} of a product of {size:,} x {size:,} matrices, {median(peak) / 1e12:.0f} TFLOP/s"
        )
        yield Result("training", f"{what}, FLOP/s", a_step, ideal, note, tokens, "tokens")
        if dtype == torch.bfloat16:
            compiled = torch.compile(start)
            began = time.perf_counter()
            ours(compiled)
            took = time.perf_counter() - began
            fast = alternate(partial(ours, compiled), ours, rounds)
            share = median(y / x for x, y in zip(fast[0], ideal, strict=True))
            note = f"ours with torch.compile against ours without; MFU {share:.1%}; the first run took {took:.0f} s"
            yield Result("training", f"{what}, compiled", *fast, note, tokens, "tokens")


def generation(rounds: int) -> Iterator[Result]:
    """256 greedy tokens after 8, one at a time, float32."""
    sizes = {
        "generation, small": ModelConfig.gpt2(256, context_length=512),
        "generation, GPT-2 small": GPT2_SMALL,
    }
    for what, config in sizes.items():
        model = GPT(config).cuda().eval()
        their_model = to_transformers(copy.deepcopy(model).cpu()).cuda()
        prompt = torch.randint(config.vocab_size, (1, 8), device="cuda")
        ones = torch.ones_like(prompt)
        options = dict(max_new_tokens=256, do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None)
        ways = [
            partial(generate, model, prompt, 256, temperature=0),
            partial(generate, model, prompt, 256, temperature=0, use_cache=False),
            partial(their_model.generate, prompt, attention_mask=ones, **options),
        ]
        cached, uncached, theirs = (way() for way in ways)
        same = f"{(cached == theirs).double().mean():.0%} of the tokens the same"
        a, c, b = map(per_call, ways)
        size = f"{model.n_parameters() / 1e6:.1f} M parameters, float32"
        note = f"{size}, {same}; launching kernels is what takes the time"
        yield Result("generation", f"{what}, cached", *alternate(a, b, rounds), note, 256, "tokens")
        same = f"{(cached == uncached).double().mean():.0%} of the tokens the same"
        note = f"{size}, {same}; theirs is ours without the cache"
        yield Result(
            "generation", f"{what}, cache against none", *alternate(a, c, rounds), note, 256, "tokens"
        )


def races(rounds: int) -> Iterator[Result]:
    """The race of chapter 5c on a GPU, in this process: both are far too small to fill it."""
    race.run("fast", 1, "cuda")  # warm-up
    seeds = race.SEEDS[:RACE_SEEDS]
    rows = {name: [] for name in ("nanogpt", "fast")}
    for seed in seeds:
        for name in rows:
            rows[name].append(race.run(name, seed, "cuda"))
    losses = {name: mean(row["loss"] for row in part) for name, part in rows.items()}
    seconds = {name: [row["training_seconds"] for row in part] for name, part in rows.items()}
    under = sum(row["loss"] < losses["nanogpt"] for row in rows["fast"])
    note = f"{under} of {len(seeds)} seeds end below the recipe's mean of {losses['nanogpt']:.3f} (ours {losses['fast']:.3f})"
    yield Result("race", "race, training", seconds["fast"], seconds["nanogpt"], note)


GROUPS = {
    "attention": attention,
    "loss": partial(layers.loss, shape=(8192, GPT2_SMALL.vocab_size), device="cuda"),
    "optimizer": optimizer,
    "training": training,
    "generation": generation,
    "race": races,
}
