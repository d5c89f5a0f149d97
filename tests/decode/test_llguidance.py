"""Masks are those of llguidance, on the course's tokenizer, wherever the two read the same language.

It is no dependency of the course: `pip install llguidance` in an environment of your own. Where version
1.9.1 reads something else, `test_where_it_differs` says so.
"""

import json
import random
import re

import numpy as np
import pytest
import torch
from random_languages import random_pattern, sample
from random_schemas import random_schema, with_definitions

from llmcourse.decode.constrain import Constraint
from llmcourse.decode.json_schema import compile_schema
from llmcourse.decode.regular import compile_regular
from llmcourse.pretrained import load_course_model

llguidance = pytest.importorskip("llguidance")
COMPACT = (",", ":")


@pytest.fixture(scope="module")
def tokenizer():
    return load_course_model()[1]


@pytest.fixture(scope="module")
def theirs(tokenizer):
    class Wrapped:
        eos_token_id, bos_token_id = tokenizer.special_tokens["<|endoftext|>"], None
        tokens, special_token_ids = tokenizer.token_bytes, list(tokenizer.special_tokens.values())

        def __call__(self, text):
            return list(text.encode() if isinstance(text, str) else text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Wrapped()))


def regular(pattern: str) -> str:
    """Classes of ASCII, which the course reads and which llguidance reads as those of Unicode."""
    blank = r" \t\n\r\f\v"
    pattern = pattern.replace(r"[\d_]", "[0-9_]").replace(r"[^\w\s]", f"[^0-9A-Za-z_{blank}]")
    for short, inside in (("d", "0-9"), ("w", "0-9A-Za-z_"), ("s", blank)):
        pattern = pattern.replace(f"\\{short}", f"[{inside}]").replace(f"\\{short.upper()}", f"[^{inside}]")
    return llguidance.LLMatcher.grammar_from_regex(pattern)


def of_schema(schema: dict) -> str:
    options = {"whitespace_flexible": False, "coerce_one_of": True}
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)


def differs(written: bytes, token: bytes) -> bool:
    """Return whether this is where the two are known to write JSON differently."""
    second_spelling = b"\\u" in written[-6:] + token  # \\u000a for \\n, \\u001F for \\u001f
    delete = b"\x7f" in token  # they write \\u007F
    minus_zero = written.endswith(b"-0") or (written.endswith(b"-") and token.startswith(b"0"))
    exponent = re.search(rb"[eE][+-]?\d\d$", written) and token.isdigit()  # they write 1e999
    return second_spelling or delete or minus_zero or bool(exponent)


def compare(constraint: Constraint, grammar: str, theirs, rng: random.Random, known=None) -> tuple[int, int]:
    """Follow texts token by token; return how many masks are equal, and how many of theirs are a part of ours.

    Where the bytes that follow are known, they may keep one of the ways to cut them into tokens.
    """
    tokenizer, equal, part = constraint.tokenizer, 0, 0
    for _ in range(3):
        matcher = llguidance.LLMatcher(theirs, grammar, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        ids, written, text = [], b"", b"\x7f"
        while known and (b"\x7f" in text or b"-0" in text):
            text = sample(constraint.automaton, rng)
        text = text if known else sample(constraint.automaton, rng)
        while True:
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            mask = torch.from_numpy(
                np.unpackbits(bits, bitorder="little")[: tokenizer.vocab_size].astype(bool)
            )
            own = constraint.allowed(ids)
            places = (own != mask).nonzero()[:, 0].tolist()
            places = [i for i in places if known is None or not known(written, tokenizer.token_bytes[i])]
            if places and constraint.forced(ids):
                assert own[places].all()
                assert mask.sum() == 1
                part += 1
            else:
                assert not places, (written, [(tokenizer.token_bytes[i], bool(own[i])) for i in places[:5]])
                equal += 1
            left = text[len(written) :]
            if not left:
                break
            fitting = [
                i for i in (own & mask).nonzero()[:, 0].tolist() if left.startswith(tokenizer.token_bytes[i])
            ]
            ids.append(rng.choice(fitting))
            written += tokenizer.token_bytes[ids[-1]]
            assert matcher.consume_token(ids[-1])
    return equal, part


@pytest.mark.parametrize("block", range(10))
def test_masks_of_random_expressions(block, tokenizer, theirs):
    for seed in range(40 * block, 40 * block + 40):
        rng = random.Random(seed)
        pattern = random_pattern(rng)
        equal, _ = compare(Constraint(compile_regular(pattern), tokenizer), regular(pattern), theirs, rng)
        assert equal >= 3


@pytest.mark.parametrize("block", range(10))
def test_masks_of_random_schemas(block, tokenizer, theirs):
    for seed in range(40 * block, 40 * block + 40):
        rng = random.Random(seed)
        schema = with_definitions(random_schema(rng))
        if '"date"' in json.dumps(schema) or "[^" in json.dumps(schema):
            continue  # see `test_where_it_differs`
        constraint = Constraint(compile_schema(schema, COMPACT), tokenizer)
        try:
            compare(constraint, of_schema(schema), theirs, rng, known=differs)
        except AssertionError as error:
            raise AssertionError(json.dumps(schema)) from error


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "text", "ours"),
    [
        (TEXT | {"format": "date"}, '"2023-02-29"', False),  # no such day
        (TEXT | {"format": "date"}, '"0000-01-01"', False),
        (TEXT | {"pattern": '^[^"]*$'}, r'"\""', False),  # the value is ", so the pattern is not kept
        (TEXT | {"pattern": r'^[^"\\]*$'}, r'"\\"', False),
        (TEXT | {"pattern": "^a.$"}, '"a\u2028"', False),  # a line break in JavaScript
        ({"type": "number"}, "1e999", False),  # infinity in most places
        ({"type": "integer"}, "-0", False),
        (TEXT, r'"\u000a"', False),  # a second spelling of \n
        (TEXT, '"\x7f"', True),  # as json.dumps writes it
        ({"type": "number", "minimum": -1, "maximum": 1}, "-0", True),
    ],
)
def test_where_it_differs(schema, text, ours, theirs):
    matcher = llguidance.LLMatcher(theirs, of_schema(schema), log_level=0)
    accepted = all(matcher.consume_token(byte) for byte in text.encode()) and matcher.is_accepting()
    assert compile_schema(schema, COMPACT).accepts(text) == ours != accepted
