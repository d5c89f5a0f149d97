"""The tokenizer against the Rust one and a plain one, cleaning at two lengths, and the time of `import llmcourse`."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.measure import Result, alternate, per_call
from llmcourse.data.cleaning.dedup import near_duplicates
from llmcourse.data.cleaning.pii import find_pii
from llmcourse.data.sources.plays import load_plays
from llmcourse.tokenizer import END_OF_TEXT, GPT2_PATTERN, BPETokenizer, replace_pair

VOCAB_SIZE = 1024


def plain_merges(words: list[str], n_merges: int) -> list[tuple[int, int]]:
    """Learn merges as the algorithm is usually told: after each merge, count all pairs of the text again."""
    words = [tuple(word.encode()) for word in words]
    merges = []
    for new_id in range(256, 256 + n_merges):
        counts = {}
        for ids in words:
            for pair in pairwise(ids):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [replace_pair(ids, best, new_id) for ids in words]
    return merges


def merges_of(engine: Tokenizer) -> set[tuple[str, str]]:
    """Return the merges of a `tokenizers` tokenizer as pairs of text."""
    return {tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]}


def tokenizer(rounds: int) -> Iterator[Result]:
    """Training and encoding on 1 MB of the plays; both sides on one thread."""
    text = "\n".join(play.text for play in load_plays(quiet=True))[:1_000_000]
    ours = BPETokenizer.train([text], VOCAB_SIZE)
    train_ours = per_call(lambda: BPETokenizer.train([text], VOCAB_SIZE))

    began = time.perf_counter()
    plain = plain_merges(regex.findall(GPT2_PATTERN, text), len(ours.merges))
    once = time.perf_counter() - began
    assert plain == list(ours.merges)
    seconds = alternate(train_ours, lambda: once, rounds)
    note = f"1 MB, {VOCAB_SIZE:,} entries, the same merges, one thread; theirs is plain Python that counts all pairs "
    note += f"of the text after each merge, run once ({once:.0f} s) and used in all rounds: "
    note += f"ours {once / max(seconds[0]):,.0f} to {once / min(seconds[0]):,.0f} times faster"
    yield Result("tokenizer", "BPE training against plain Python", *seconds, note)

    def train_rust():
        engine = Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        options = dict(special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False)
        engine.train_from_iterator([text], trainers.BpeTrainer(vocab_size=VOCAB_SIZE, **options))
        return engine

    engine = ours.to_tokenizers()
    shared = len(merges_of(engine) & merges_of(train_rust())) / len(ours.merges)
    assert shared > 0.9, f"only {shared:.0%} of the merges are those of the Rust trainer"
    note = f"1 MB, {VOCAB_SIZE:,} entries: numpy against Rust, one thread each; {shared:.0%} of the merges shared"
    seconds = alternate(train_ours, per_call(train_rust), rounds)
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


def cleaning(rounds: int) -> Iterator[Result]:
    """A long text, or many pages, against as much in ten pieces: near 1, time grows with the length."""
    note = "64,000 characters at once against ten times 6,400: about 1 where time grows with the length, 10 with its square"
    for unit in ("A1b2-_C3", "a@", "+49 ", "::1 "):
        whole, piece = ((unit * n)[:n] for n in (64_000, 6_400))
        at_once = per_call(lambda whole=whole: find_pii(whole))
        in_ten = per_call(lambda piece=piece: [find_pii(piece) for _ in range(10)])
        yield Result("cleaning", f"find_pii, {unit!r} repeated", *alternate(at_once, in_ten, rounds), note)
    end = "is a village in the north of the district. This page is a stub. You can help by adding to it."
    pages = [f"Village {number} {end}" for number in range(3000)]
    parts = [pages[start : start + 300] for start in range(0, 3000, 300)]
    at_once, in_ten = (
        per_call(lambda: near_duplicates(pages)),
        per_call(lambda: [*map(near_duplicates, parts)]),
    )
    note = "3,000 pages made from one template against ten times 300: 1 where time grows with their number"
    yield Result("cleaning", "near_duplicates, stub pages", *alternate(at_once, in_ten, rounds), note)


def start(rounds: int) -> Iterator[Result]:
    """`import llmcourse` against an interpreter that does nothing; torch must stay out."""
    check = "import sys, llmcourse; assert 'torch' not in sys.modules"

    def python(code: str):
        return per_call(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    ours, theirs = alternate(python(check), python("import sys"), max(rounds, 10))
    extra = 1000 * (min(ours) - min(theirs))
    note = f"best of {len(ours)}: {extra:.1f} ms over a bare interpreter; torch is not imported"
    yield Result("import", "import llmcourse", ours, theirs, note)
