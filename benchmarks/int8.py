"""Decoding with int8 weights, one text at a time: against float32, an earlier commit, and CTranslate2 with int8.

All linear layers and the embedding are packed, a scale a row. One thread, seconds of the processor.
The models of 2.3 M and 20 M parameters are random, their biases too. CTranslate2 is measured where it
is installed.
"""

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.against import trees
from benchmarks.decoding import BEFORE, COURSE, ctranslate2_writer, split_tokens
from benchmarks.measure import Memory, Result, alternate, cpu_seconds
from llmcourse.compress.rounding import quantize_model
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte
from llmcourse.fast.decoding import build_decoder
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.packed import Scheme
from llmcourse.pretrained import load_course_model

ROWS, AT_ONCE, JUDGED = Scheme(8, "row"), 32, 20_000  # tokens: read at once, and judged
RANDOM = """
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
torch.manual_seed(0)
model = GPT(ModelConfig.gpt2(2048, context_length=512, **{shape})).eval()
"""
SHAPES = {
    "GPT-2 of 2.3 M parameters": (dict(d_model=192, n_heads=6, n_layers=4), 256),  # and new tokens
    "GPT-2 of 20 M parameters": (dict(d_model=512, n_heads=8, n_layers=6), 128),
}


def theirs(folder: str) -> dict[str, tuple[str, str]]:
    """Return the work of a tree without packed models: (set-up, one round) by the names of `cases`."""
    work = {"course model": (COURSE.format(folder=folder), "write(temperature=0)")}
    for name, (shape, new) in SHAPES.items():
        code = f"generate(model, torch.arange(8)[None], {new}, temperature=0)"
        work[name] = RANDOM.format(shape=shape), code
    return work


def cases() -> Iterator[tuple[str, GPT, list[Tensor], int]]:
    """Yield (name, model, prompts (1, T), new tokens after each)."""
    model, tokenizer = load_course_model()
    yield "course model", model, split_tokens(tokenizer)[0], 96
    for name, (shape, new) in SHAPES.items():
        torch.manual_seed(0)
        model = GPT(ModelConfig.gpt2(2048, context_length=512, **shape)).eval()
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                nn.init.normal_(parameter, std=0.02)
        yield name, model, [torch.arange(8)[None]], new


def n_bytes(model: GPT) -> int:
    """Return the bytes of a model's weights in memory, packed or not."""
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.state_dict().values()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@torch.no_grad()
def decoded_bits(model: GPT, token_ids: Tensor, length: int) -> float:
    """Return the bits that the model needs for a byte of text, `length` in all, with the logits of its decoder."""
    T, losses = model.config.context_length, []
    decode = build_decoder(model, model.make_caches(1))
    for start in range(0, len(token_ids) - 1, T):
        row = token_ids[start : start + T + 1]
        logits = [decode.read(part, i * AT_ONCE) for i, part in enumerate(row[:-1].split(AT_ONCE))]
        losses.append(F.cross_entropy(torch.cat(logits).float(), row[1:], reduction="none"))
    return bits_per_byte(torch.cat(losses).double().mean().item(), len(token_ids) - 1, length)


def int8(rounds: int) -> Iterator[Result]:
    """Each model with int8 weights against itself in float32, that at BEFORE, and CTranslate2 with int8."""
    with (
        tempfile.TemporaryDirectory() as folder,
        trees(BEFORE, work=theirs(folder), clock="process_time") as (_, there),
    ):
        for name, model, prompts, new in cases():
            torch.save(prompts, Path(folder, "prompts.pt"))
            packed = quantize_model(model, ROWS, embedding=ROWS)
            note = "greedy" if name != "course model" else "greedy; " + quality(model, packed)

            def write(model=packed, prompts=prompts, new=new):
                return [generate(model, prompt, new, temperature=0) for prompt in prompts]

            others = {
                "float32": cpu_seconds(lambda write=write, model=model: write(model)),
                f"commit {BEFORE}": lambda name=name: there.seconds(name),
            }
            if importlib.util.find_spec("ctranslate2") is not None:
                other = ctranslate2_writer(model, folder, "int8", new)
                others["CTranslate2, int8"] = cpu_seconds(
                    lambda other=other, prompts=prompts: [other(prompt[0]) for prompt in prompts]
                )
            for other, measure in others.items():
                pairs = alternate(cpu_seconds(write), measure, rounds)
                yield Result("int8", f"{name}, against {other}", *pairs, note, len(prompts) * new, "tokens")
            sizes = ([n_bytes(each) / 1e6] * rounds for each in (packed, model))
            yield Memory("int8", f"{name}, weights against float32", *sizes, "in memory")


def quality(model: GPT, packed: GPT) -> str:
    """Say how many bits per byte the packed course model loses on plays for validation, as it decodes."""
    _, tokenizer = load_course_model()
    text = "\n".join(play.text for play in split_by_title(load_plays(quiet=True))[1])
    ids = torch.tensor(tokenizer.encode(text))[:JUDGED]
    length = len(tokenizer.decode(ids.tolist()).encode())
    lost = decoded_bits(packed, ids, length) - decoded_bits(model, ids, length)
    return f"{lost:+.4f} bits per byte on {JUDGED:,} tokens for validation"
