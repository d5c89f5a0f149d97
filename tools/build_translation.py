"""Train the translator of chapter 6a, English to French and Chinese: `python tools/build_translation.py`.

It resumes where it stopped. The model, with a card, goes to data/checkpoints/translation/.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch

from llmcourse.data.pairs import PairBatches
from llmcourse.data.parallel import split_pairs
from llmcourse.data.sources.catalogues import LANGUAGES, load_catalogues
from llmcourse.data.translation_text import (
    END,
    PAD,
    START,
    encode_pair,
    finish,
    prepare,
    texts_of,
    train_tokenizer,
)
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.translation import translation_scores
from llmcourse.losses import seq2seq_loss, smoothed_next_token_loss
from llmcourse.optim import muon_and_adamw
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_linear
from llmcourse.seq2seq import generate_target
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
SEED = 1234
CONFIG = dict(context_length=128, d_model=128, n_heads=4, n_layers=2, n_encoder_layers=3, dropout=0.2)
RECIPE = dict(muon_lr=0.02, adamw_lr=3e-3, weight_decay=0.1, batch_size=96, smoothing=0.1)


def greedy(model, tokenizer, pairs) -> list[str]:
    special, out = tokenizer.special_tokens, {}
    prepared = [prepare(tokenizer, pair.source, pair.language) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(prepared[i].ids))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        longest = min(120, 2 * max(len(prepared[i].ids) for i in rows) + 8)
        ids = generate_target(model, [prepared[i].ids for i in rows], longest, special[START], special[END])
        out |= {i: finish(tokenizer, row, prepared[i]) for i, row in zip(rows, ids.tolist(), strict=True)}
    return [out[i] for i in range(len(pairs))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--name", default="translation")
    arguments = parser.parse_args()
    set_up(SEED, threads=arguments.threads)
    parts = split_pairs([pair for language in LANGUAGES for pair in load_catalogues(language)[0]])
    tokenizer = train_tokenizer(texts_of(parts["train"]), 4000, LANGUAGES)
    special = tokenizer.special_tokens
    encoded = [encode_pair(tokenizer, pair) for pair in parts["train"]]
    torch.manual_seed(SEED)
    model = EncoderDecoder(EncoderDecoderConfig(tokenizer.vocab_size, **CONFIG))
    print(f"{model.n_parameters():,} parameters, {len(encoded)} pairs", flush=True)
    batches = PairBatches(encoded, special[START], special[END], RECIPE["batch_size"], special[PAD], SEED)
    optimizer = muon_and_adamw(
        model,
        RECIPE["muon_lr"],
        RECIPE["adamw_lr"],
        weight_decay=RECIPE["weight_decay"],
        dtype=torch.bfloat16,
    )
    for step in train(
        model,
        batches,
        steps=arguments.steps,
        loss=partial(seq2seq_loss, loss=smoothed_next_token_loss(RECIPE["smoothing"])),
        optimizer=optimizer,
        schedule=warmup_linear(arguments.steps),
        dtype=torch.bfloat16,
        checkpoint=ROOT / "runs" / f"{arguments.name}.pt",
        checkpoint_every=100,
        resume=True,
    ):
        if step.step % 100 == 0:
            print(
                f"{step.step:6} {step.loss:.3f} {step.seconds:.0f} s, cpu {time.process_time():.0f}",
                flush=True,
            )
        if step.step % 1000 == 0:
            for language in LANGUAGES:
                some = [pair for pair in parts["validation"] if pair.language == language]
                out = greedy(model, tokenizer, some)
                scores = translation_scores(out, [pair.target for pair in some], language)
                print(
                    language,
                    {k: round(v, 3) for k, v in scores.items()},
                    list(zip([p.source for p in some], out, strict=True))[50:53],
                    flush=True,
                )


if __name__ == "__main__":
    main()
