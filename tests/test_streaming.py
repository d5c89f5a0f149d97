"""Pieces of a stream against the text that is decoded at once."""

import random

import pytest
import torch

from llmcourse.generate import generate, generate_tokens
from llmcourse.model import GPT, ModelConfig
from llmcourse.streaming import stream_text
from llmcourse.tokenizer import BPETokenizer

TEXTS = ["", "to be", "Zoë aß 5 € für 你好, 世界", "👩‍👩‍👧 and 🇩🇪", "e\u0301 and \ufeff\ufffd\r\n"]
BYTES = BPETokenizer.from_merges([])
TRAINED = BPETokenizer.train([" ".join(TEXTS)] * 3, vocab_size=300)


@pytest.mark.parametrize("tokenizer", [BYTES, TRAINED], ids=["bytes", "trained"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text_and_hold_whole_characters(tokenizer, text):
    pieces = list(stream_text(tokenizer, tokenizer.encode(text)))
    assert "".join(pieces) == text
    assert all(pieces)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("seed", range(300))
def test_any_bytes_give_what_decode_gives(seed):
    rng = random.Random(seed)
    parts = [bytes([rng.randrange(256)]) for _ in range(12)] + [c.encode() for c in rng.sample("aé€你👩", 3)]
    rng.shuffle(parts)
    ids = list(b"".join(parts))  # a token of BYTES is a byte
    assert "".join(stream_text(BYTES, ids)) == BYTES.decode(ids)


def test_a_piece_comes_before_the_next_token_is_asked_for():
    asked = []

    def tokens():
        for token_id in BYTES.encode("aé!"):
            asked.append(token_id)
            yield token_id

    stream = stream_text(BYTES, tokens())
    seen = [(piece, len(asked)) for piece in stream]
    assert seen == [("a", 1), ("é", 3), ("!", 4)]


def test_a_model_is_streamed_as_it_is_decoded():
    torch.manual_seed(0)
    model = GPT(ModelConfig(TRAINED.vocab_size, context_length=16, d_model=16, n_layers=1)).eval()
    prompt = TRAINED.encode("to be")
    whole = generate(model, prompt, 60, seed=1)[0, len(prompt) :]
    assert "".join(stream_text(TRAINED, generate_tokens(model, prompt, 60, seed=1))) == TRAINED.decode(whole)
    assert "".join(stream_text(TRAINED, whole)) == TRAINED.decode(whole)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([torch.tensor([1, 2])], r"a step has 2 tokens: stream one row, such as new\[0\]"),
        ([257], r"token id 257 is outside this vocabulary of 257"),
        ([1.5], r"a token id=1.5 must be a whole number"),
    ],
)
def test_what_is_no_row_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        list(stream_text(BYTES, ids))
