"""Beam search against transformers' generate, with models of the same weights."""

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Result, alternate, cpu_seconds
from llmcourse import fast
from llmcourse.convert_seq2seq import seq2seq_to_transformers
from llmcourse.decode import beam
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.seq2seq import generate_target

START, STOP, NEW, BEAMS = 0, 1, 48, 4
SIZES = {  # width and layers of each stack, sources at once
    "small": (128, 2, 1),
    "deeper": (128, 4, 1),
    "wider": (256, 3, 1),
    "small, 8 sources": (128, 2, 8),
}


def translator(d_model: int, n_layers: int) -> EncoderDecoder:
    """Return a model whose logits are far enough apart that rounding changes no choice."""
    config = EncoderDecoderConfig.marian(2048, d_model=d_model, n_layers=n_layers, context_length=128)
    model = EncoderDecoder(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.08)
    return model


def beam_search(rounds: int) -> Iterator[Result]:
    """4 beams, and greedy, after sources of 20 tokens, in processor time; sequences are equal, or it stops here."""
    for what, (d_model, n_layers, n_sources) in SIZES.items():
        model = translator(d_model, n_layers)
        their_model = seq2seq_to_transformers(model, START, STOP)
        source = torch.randint(2, 2048, (n_sources, 20))
        ones = torch.ones_like(source)

        def ours(model=model, source=source):
            return beam.beam_search(model, source, NEW, BEAMS, STOP, START)

        def plain(ours=ours):
            with fast.disabled():
                return ours()

        def greedy(model=model, source=source):
            return generate_target(model, source, NEW, START, STOP)

        def theirs(n_beams=BEAMS, model=their_model, source=source, ones=ones):
            options = dict(attention_mask=ones, do_sample=False, max_new_tokens=NEW)
            return model.generate(source, num_beams=n_beams, **options)

        for found in (ours(), plain()):
            for [hypothesis], row in zip(found, theirs().tolist(), strict=True):
                n = len(hypothesis.token_ids)
                assert hypothesis.token_ids == row[1 : 1 + n], "transformers wrote another sequence"
        assert torch.equal(greedy(), theirs(1)[:, 1:]), "transformers wrote another sequence"
        size = f"{model.n_parameters() / 1e6:.1f} M parameters, {NEW} tokens after {n_sources} x 20"
        note = f"{size}; the sequences are equal; seconds of the processor"
        amount = NEW * n_sources, "tokens"
        for name, one in ((f"{BEAMS} beams", ours), ("greedy", greedy)):
            other = theirs if one is ours else lambda theirs=theirs: theirs(1)
            seconds = alternate(cpu_seconds(one), cpu_seconds(other), rounds)
            yield Result("beam search", f"{name}, {what}", *seconds, note, *amount)
        seconds = alternate(cpu_seconds(ours), cpu_seconds(plain), rounds)
        yield Result(
            "beam search",
            f"{BEAMS} beams, {what}, fast/",
            *seconds,
            f"{size}; theirs is ours without fast/",
            *amount,
        )
