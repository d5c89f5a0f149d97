"""The checkpoint of four bits that ships: its card is true, and it writes through its packed weights."""

import hashlib
import re

import pytest
import torch

from llmcourse.compress.rounding import quantize_model
from llmcourse.data.batches import pack
from llmcourse.data.manifest import course_data
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.generate import generate
from llmcourse.packed import Scheme
from llmcourse.packed_model import are_tied, packed_schemes, unpack_model
from llmcourse.pretrained import load_course_model

FOLDER = course_data() / "checkpoints" / "int4"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shipped():
    return load_course_model("int4")


def test_the_card_is_of_this_file(shipped):
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert f"{len(weights)} bytes, sha256 {hashlib.sha256(weights).hexdigest()}" in CARD
    base = (FOLDER.parent / "pretrained" / "model.safetensors").read_bytes()
    assert f"(sha256 {hashlib.sha256(base).hexdigest()}), {len(base)} bytes" in CARD
    assert len(weights) < 0.27 * len(base)


def test_it_is_the_base_rounded_to_nearest(shipped):
    model, _ = shipped
    base, _ = load_course_model("pretrained")
    schemes = packed_schemes(model)
    assert set(schemes.values()) == {Scheme(4, 64)}
    assert are_tied(model)
    ids = torch.arange(100)[None]
    expected = quantize_model(base, Scheme(4, 64), embedding=schemes["token_embedding"])
    assert torch.equal(model(ids), expected(ids))


def test_the_loss_of_the_card_is_measured_again(shipped):
    model, tokenizer = shipped
    ids = pack([tokenizer.encode(play.text) for play in split_by_title(load_plays(quiet=True))[0]], 0)[
        :20_000
    ]
    n_bytes = len(tokenizer.decode_bytes(ids[1:].tolist()))
    stated = float(re.search(r"Training text, .*? \| (\d\.\d{4}) bits", CARD)[1])
    found = bits_per_byte(evaluate_loss(model, ids), len(ids) - 1, n_bytes)
    assert found == pytest.approx(stated, abs=5e-4)


def test_it_writes_what_its_unpacked_copy_writes(shipped):
    model, tokenizer = shipped
    prompt = tokenizer.encode("ROMEO:\n")
    texts = [generate(m, prompt, 12, temperature=0) for m in (model, unpack_model(model))]
    assert torch.equal(*texts)
