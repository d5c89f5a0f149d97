"""What `06b_summarization` compares: systems without training, and a small model with and without a pointer."""

from collections import Counter

import numpy as np
import torch

from llmcourse.data.pairs import PairBatches
from llmcourse.data.sources.docstrings import SPLIT, Docstring, load_docstrings, split_docstrings
from llmcourse.data.sources.encoder import encoder_name
from llmcourse.data.summary_text import END, PAD, START, encode_pair, name_words, sentences
from llmcourse.decode.summarizer import Summarizer
from llmcourse.evaluate.extractive import Embed, best_sentence, first_words, lead, textrank
from llmcourse.finetune.classify import encoder_features
from llmcourse.losses import seq2seq_loss
from llmcourse.optim import muon_and_adamw
from llmcourse.pointer import PointerConfig, PointerGenerator
from llmcourse.schedules import warmup_linear
from llmcourse.training import Step, train

PACKAGES = ("cirq", "kornia", "pyglet", "pyvista")
SHAPE = dict(context_length=32, source_context_length=64, d_model=64, n_heads=4, n_layers=1)


def load_some(
    packages=(*PACKAGES, *SPLIT["test"]), quiet: bool = True
) -> tuple[dict[str, list[Docstring]], Counter]:
    """Return (parts, counts): docstrings of four packages to train on, those of the test, and what was left out."""
    pairs, counts = [], Counter()
    for package in packages:
        found, counted = load_docstrings(package, quiet=quiet)
        pairs += found
        counts += counted
    return split_docstrings(pairs), counts


def named(definitions: list[Docstring], name: str) -> Docstring:
    """Return the definition of a name; on a stand-in, which lacks it, one whose text has most sentences."""
    return max(definitions, key=lambda d: (d.name == name, len(sentences(d.source))))


def train_small(
    tokenizer, definitions, copy: bool, seed: int, steps: int = 300, device="cpu"
) -> tuple[Summarizer, list[Step]]:
    """Return a summarizer of one block in each stack, trained on definitions on a device, and the steps."""
    torch.manual_seed(seed)
    model = PointerGenerator(PointerConfig(tokenizer.vocab_size, copy=copy, **SHAPE)).to(device)
    pairs = [encode_pair(tokenizer, d, SHAPE["source_context_length"]) for d in definitions]
    pairs = [pair for pair in pairs if len(pair[1]) < SHAPE["context_length"]]
    pad_id, start_id, end_id = (tokenizer.special_tokens[name] for name in (PAD, START, END))
    batches = PairBatches(pairs, start_id, end_id, 32, pad_id, seed)
    optimizer = muon_and_adamw(model, muon_lr=0.02, adamw_lr=1e-2)
    history = list(
        train(
            model, batches, steps=steps, loss=seq2seq_loss, optimizer=optimizer, schedule=warmup_linear(steps)
        )
    )
    return Summarizer(model.cpu().eval(), tokenizer), history


def sentence_vectors(sentences: list[str]) -> np.ndarray:
    """Return (N, 384), MiniLM's vectors of sentences: the means of its last layer, of 64 tokens at most."""
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = encoder_name(quiet=True)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    return encoder_features(model, tokenizer, sentences, max_length=64)[:, -1].numpy()


def without_training(definitions, embed: Embed) -> dict[str, list[str]]:
    """Return the summaries of each system that learns nothing; the last one knows the answer.

    The name is that of the function or class alone, as words.
    """
    texts = [d.source for d in definitions]
    return {
        "lead-1": lead(texts),
        "TextRank": textrank(texts, embed),
        "first 8 words": first_words(texts, 8),
        "name": [name_words(d.name.rsplit(".", 1)[-1]) for d in definitions],
        "best sentence": best_sentence(texts, [d.target for d in definitions]),
    }
