"""The tokenizer against the Rust one and a plain one, and the time of `import llmcourse`."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.measure import Result, alternate, per_call
from llmcourse.data.corpora import load_plays
from llmcourse.tokenizer import END_OF_TEXT, GPT2_PATTERN, BPETokenizer, learn_merges, replace_pair

VOCAB_SIZE, SHORT_TEXT, SHORT_MERGES = 1024, 50_000, 256


def plain_merges(word_counts: dict[str, int], n_merges: int) -> list[tuple[int, int]]:
    """Learn merges as the algorithm is usually told: count all pairs again after each merge."""
    words = {tuple(word.encode()): count for word, count in word_counts.items()}
    merges = []
    for new_id in range(256, 256 + n_merges):
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {replace_pair(word, best, new_id): count for word, count in words.items()}
    return merges


def merges_of(engine: Tokenizer) -> set[tuple[str, str]]:
    """Return the merges of a `tokenizers` tokenizer as pairs of text."""
    return {tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]}


def tokenizer(rounds: int) -> Iterator[Result]:
    """Training and encoding on 1 MB of the plays; both sides on one thread."""
    text = "\n".join(play.text for play in load_plays(quiet=True))[:1_000_000]
    words = Counter(regex.findall(GPT2_PATTERN, text[:SHORT_TEXT]))
    assert learn_merges(words, SHORT_MERGES) == plain_merges(words, SHORT_MERGES)
    a = per_call(lambda: learn_merges(words, SHORT_MERGES))
    b = per_call(lambda: plain_merges(words, SHORT_MERGES))
    note = f"theirs is plain Python that recounts all pairs: {SHORT_MERGES} merges on 50 kB, equal merges"
    yield Result("tokenizer", "BPE training against plain Python", *alternate(a, b, rounds), note)

    def train_rust():
        engine = Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        options = dict(special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False)
        engine.train_from_iterator([text], trainers.BpeTrainer(vocab_size=VOCAB_SIZE, **options))
        return engine

    ours = BPETokenizer.train([text], VOCAB_SIZE)
    engine = ours.to_tokenizers()
    shared = len(merges_of(engine) & merges_of(train_rust())) / len(ours.merges)
    assert shared > 0.9, f"only {shared:.0%} of the merges are those of the Rust trainer"
    a = per_call(lambda: BPETokenizer.train([text], VOCAB_SIZE))
    note = f"1 MB, {VOCAB_SIZE:,} entries: Python against Rust, one thread each; {shared:.0%} of the merges shared"
    seconds = alternate(a, per_call(train_rust), rounds)
    yield Result("tokenizer", "BPE training against Rust", *seconds, note)

    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # its faster way to split

    def encode_rust():
        return engine.encode_batch_fast([text])[0].ids

    assert ours.encode(text) == encode_rust()

    def encode_cold():
        ours._cache.clear()
        ours.encode(text)

    def encode_rust_cold():
        engine.model._clear_cache()
        encode_rust()

    size = len(text.encode()) / 1e3
    note = "1 MB in one piece, one thread, no word seen before, equal ids; with many pieces and"
    note += " several threads theirs would use all cores"
    seconds = alternate(per_call(encode_cold), per_call(encode_rust_cold), rounds)
    yield Result("tokenizer", "encoding, first time", *seconds, note, size, "kB")
    note = "the same again: ours then only looks each word up in a table"
    a, b = per_call(lambda: ours.encode(text)), per_call(encode_rust)
    yield Result("tokenizer", "encoding, words known", *alternate(a, b, rounds), note, size, "kB")


def start(rounds: int) -> Iterator[Result]:
    """`import llmcourse` against an interpreter that does nothing; torch must stay out."""
    check = "import sys, llmcourse; assert 'torch' not in sys.modules"

    def python(code: str):
        return per_call(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    ours, theirs = alternate(python(check), python("import sys"), max(rounds, 10))
    extra = 1000 * (min(ours) - min(theirs))
    note = f"best of {len(ours)}: {extra:.1f} ms over a bare interpreter; torch is not imported"
    yield Result("import", "import llmcourse", ours, theirs, note)
