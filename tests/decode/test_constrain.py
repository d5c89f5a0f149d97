"""Masks are those of brute force, and what is written under them always fits."""

import json
import random
import re
from fractions import Fraction
from itertools import product

import pytest
import torch
from random_languages import random_pattern, sample

from llmcourse.decode.automaton import STUCK
from llmcourse.decode.constrain import Constraint
from llmcourse.decode.json_schema import compile_schema
from llmcourse.decode.regular import compile_regular
from llmcourse.generate import generate
from llmcourse.pretrained import load_course_model
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer


def tokenizer_of(*tokens: str | bytes) -> BPETokenizer:
    """A tokenizer with all bytes and these tokens."""
    tokens = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    everything = [bytes([i]) for i in range(256)] + tokens + [END_OF_TEXT.encode()]
    return BPETokenizer(everything, {}, {END_OF_TEXT: len(everything) - 1})


@pytest.fixture(scope="module")
def course():
    return load_course_model()


def names(tokenizer, mask):
    return [tokenizer.token_bytes[i] for i in mask.nonzero()[:, 0].tolist()]


def test_masks_are_those_of_trying_every_token():
    """All texts of four letters are listed, and a token may come if one of those that fit goes on so."""
    tokenizer = tokenizer_of(
        "ab", "aé", "éb", b"\xc3a", b"b\xc3", b"\xa9a", b"\xa9\xc3", "bab", "ba", "babab"
    )
    everything = ["".join(letters) for n in range(6) for letters in product("abcé", repeat=n)]
    tried = 0
    for seed in range(150):
        rng = random.Random(seed)
        pattern = random_pattern(rng, 2, endless=False, atoms=["a", "b", "é", "[ab]", "[^aé]", "."])
        fitting = [text.encode() for text in everything if re.fullmatch(pattern, text)]
        longer = [text for text in map("".join, product("abcé", repeat=6)) if re.fullmatch(pattern, text)]
        if not fitting or longer:
            continue
        constraint = Constraint(compile_regular(pattern) & compile_regular("[abcé]{0,5}"), tokenizer)
        for _ in range(3):
            ids = tokenizer.encode(rng.choice(fitting).decode())
            ids = ids[: rng.randint(0, len(ids))]
            written = tokenizer.decode_bytes(ids)
            own = set(names(tokenizer, constraint.allowed(ids)))
            tokens = tokenizer.token_bytes[:-1]
            expected = {
                token for token in tokens if any(text.startswith(written + token) for text in fitting)
            }
            assert own - {END_OF_TEXT.encode()} == expected, (pattern, written)
            assert (END_OF_TEXT.encode() in own) == (written in fitting) == constraint.is_complete(ids)
            tried += 1
    assert tried > 100


def test_whatever_is_chosen_what_is_written_fits(course):
    _, tokenizer = course
    whole = 0
    for seed in range(60):
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        pattern = random_pattern(rng)
        constraint = Constraint(pattern, tokenizer)
        prompt = torch.tensor([[3, 4], [5, 6]])
        ids, process = prompt, constraint.after(2)
        for _ in range(12):
            logits = 5 * torch.randn(2, tokenizer.vocab_size, generator=generator)
            probabilities = process(ids, logits).softmax(-1)
            ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
        for row in ids[:, 2:].tolist():
            text = tokenizer.decode_bytes([i for i in row if i != constraint.end_id])
            if constraint.is_complete(row):
                assert re.fullmatch(pattern, text.decode(), re.ASCII)
                whole += 1
            else:
                assert constraint.end_id not in row
                assert constraint.automaton.walk(0, text) != STUCK
    assert 40 < whole < 120  # and some were cut off


def test_with_a_length_everything_is_whole(course):
    _, tokenizer = course
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        constraint = Constraint(random_pattern(random.Random(seed)), tokenizer)
        least = int(constraint.distances()[0])
        room = least + seed % 4
        if room == 0:
            continue
        ids, process = torch.tensor([[1]]), constraint.after(1, max_new_tokens=room)
        for _ in range(room):
            logits = process(ids, torch.randn(1, tokenizer.vocab_size, generator=generator))
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], dim=1)
        assert constraint.is_complete(ids[0, 1:])
        if least:
            with pytest.raises(ValueError, match=f"needs {least}"):
                constraint.after(1, max_new_tokens=least - 1)


def test_distances_are_those_of_trying_all_sequences_of_tokens():
    tokenizer = tokenizer_of("abc", "bc", "bb", "aa")
    constraint = Constraint("a?(bc|b{5}|aab)", tokenizer)
    for state, distance in enumerate(constraint.distances()[:-1]):
        reached, n = {state}, 0
        while not any(constraint.automaton.accepting[s] for s in reached):
            tokens = [token for token in tokenizer.token_bytes[:-1] if set(token) <= set(b"abc")]
            reached = {constraint.automaton.walk(s, t) for s in reached for t in tokens} - {STUCK}
            n += 1
        assert n == distance


def test_rows_have_their_own_states_and_an_ended_row_stays_ended(course):
    _, tokenizer = course
    constraint = Constraint("[ab]c", tokenizer)
    a, b, c = (tokenizer.encode(letter)[0] for letter in "abc")
    end = constraint.end_id
    ids = torch.tensor([[9, a, c, end], [9, b, c, end]])
    for n, allowed in enumerate([[a, b], [c], [end], [end]]):
        masked = constraint.after(1)(ids[:, : n + 1], torch.zeros(2, tokenizer.vocab_size + 3))
        for row in masked:
            finite = row.isfinite().nonzero()[:, 0].tolist()
            assert set(allowed) <= set(finite)
            assert n > 0 or tokenizer.encode("ac")[0] in finite
            assert end in finite or n < 2
    mixed = torch.tensor([[9, a], [9, b]])
    assert constraint.after(1)(mixed, torch.zeros(2, tokenizer.vocab_size))[:, c].tolist() == [0, 0]


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_course_model_writes_what_fits(course, use_cache):
    model, tokenizer = course
    properties = {"speaker": {"enum": ["ROMEO", "JULIET"]}, "line": {"type": "string", "minLength": 5}}
    schema = {"type": "object", "properties": properties, "required": ["speaker", "line"]}
    constraint = Constraint(compile_schema(schema), tokenizer)
    prompt = torch.tensor([tokenizer.encode("ROMEO:\nWhat light?\n\n")] * 3)
    n = prompt.shape[-1]
    ids = generate(
        model,
        prompt,
        30,
        constraint.end_id,
        seed=0,
        top_k=50,
        use_cache=use_cache,
        process=constraint.after(n, 30),
    )
    texts = [tokenizer.decode(row[row != constraint.end_id]) for row in ids[:, n:]]
    assert len(set(texts)) == 3
    for row, text in zip(ids[:, n:], texts, strict=True):
        assert constraint.is_complete(row)
        value = json.loads(text)
        assert list(value) == ["speaker", "line"]
        assert value["speaker"] in ("ROMEO", "JULIET")
        assert len(value["line"]) >= 5


def test_rows_may_change_their_order_as_in_beam_search(course):
    _, tokenizer = course
    constraint = Constraint("(ab|ba)*c", tokenizer)
    kept, a, b = constraint.after(1), *(tokenizer.encode(letter)[0] for letter in "ab")
    for rows in (
        [[9], [9]],
        [[9, a], [9, b]],
        [[9, b, a], [9, a, b]],
        [[9, a, b, b], [9, a, b, a]],
        [[9, b], [9, a]],
    ):
        ids, logits = torch.tensor(rows), torch.zeros(2, tokenizer.vocab_size)
        assert torch.equal(kept(ids, logits), constraint.after(1)(ids, logits))


def test_no_special_token_may_come_but_the_end():
    tokenizer = tokenizer_of("|user|").with_special_tokens(["<|user|>", "user"])
    constraint = Constraint("(user|<.user.>)*", tokenizer)
    allowed = constraint.allowed([])
    assert allowed[tokenizer.special_tokens[END_OF_TEXT]]
    assert not allowed[tokenizer.special_tokens["<|user|>"]]
    assert not allowed[tokenizer.special_tokens["user"]]
    assert not constraint.is_complete([tokenizer.special_tokens["user"]])
    assert constraint.is_complete(tokenizer.encode("user<|user|>"))
    other = Constraint("a*", tokenizer, end="<|user|>")
    assert other.allowed([])[tokenizer.special_tokens["<|user|>"]]
    assert not other.allowed([])[tokenizer.special_tokens[END_OF_TEXT]]


def test_what_would_have_no_way_on_is_refused_before():
    lacking = BPETokenizer([b"a", b"b", b"ab", b"<|endoftext|>"], {}, {END_OF_TEXT: 3})
    assert names(lacking, Constraint("[ab]+", lacking).allowed([])) == [b"a", b"b", b"ab"]
    with pytest.raises(ValueError, match="no token for the byte 0x63 alone, and 1 others"):
        Constraint("[a-d]", lacking)
    with pytest.raises(ValueError, match=r"no special token '<.end.>'"):
        Constraint("a", lacking, end="<|end|>")


def test_wrong_use_is_named(course):
    _, tokenizer = course
    constraint = Constraint("a+", tokenizer)
    with pytest.raises(ValueError, match="'ROMEO' does not fit"):
        constraint.after(0)(torch.tensor([tokenizer.encode("ROMEO")]), torch.zeros(1, tokenizer.vocab_size))
    with pytest.raises(ValueError, match="do not belong together"):
        constraint.after(1)(torch.tensor([[1]]), torch.zeros(1, 5))
    with pytest.raises(ValueError, match="must be a whole number"):
        constraint.after(-1)
    end = constraint.end_id
    assert constraint.state([end]) == STUCK  # "" does not fit
    assert constraint.state([*tokenizer.encode("a"), end, *tokenizer.encode("a")]) == STUCK


def test_the_cache_may_overflow(course, monkeypatch):
    _, tokenizer = course
    constraint = Constraint("[ab]{1,9}c", tokenizer)
    before = [constraint.allowed(tokenizer.encode("ab" * n)).clone() for n in range(4)]
    monkeypatch.setattr("llmcourse.decode.constrain.MAX_CACHED", 2 * tokenizer.vocab_size)
    again = Constraint("[ab]{1,9}c", tokenizer)
    for _ in range(2):
        after = [again.allowed(tokenizer.encode("ab" * n)) for n in range(4)]
        assert all(map(torch.equal, before, after))
    assert len(again._rows) <= 2


def test_forced_text_is_what_every_text_goes_on_with():
    for seed in range(60):
        rng = random.Random(seed)
        own = compile_regular("(" + random_pattern(rng) + ")(end|en)")
        forced = own.forced(0)
        assert all(sample(own, rng).startswith(forced) for _ in range(10))
    assert compile_regular("a(b|c)d").forced(0) == b"a"
    assert compile_regular("ab?").forced(0) == b"a"


def test_masking_is_not_conditioning():
    """Two texts fit, "ab" and "ba". A model that writes two letters gives them 0.09 and 0.02.

    Given that the text fits, they have 9/11 and 2/11. With masks the first letter decides, by its own
    probability, 0.9 and 0.1: "ab" has 9/10. What is likely first and unlikely later is written too often.
    """
    first = {"a": Fraction(9, 10), "b": Fraction(1, 10)}
    second = {
        "a": {"a": Fraction(9, 10), "b": Fraction(1, 10)},
        "b": {"a": Fraction(2, 10), "b": Fraction(8, 10)},
    }
    joint = {x + y: first[x] * second[x][y] for x in "ab" for y in "ab"}
    total = joint["ab"] + joint["ba"]
    assert {text: joint[text] / total for text in ("ab", "ba")} == {
        "ab": Fraction(9, 11),
        "ba": Fraction(2, 11),
    }

    tokenizer = tokenizer_of()
    process = Constraint("ab|ba", tokenizer).after(1)
    masked, weight = {}, {}
    for text in ("ab", "ba"):
        ids, probability, left = torch.tensor([[0]]), 1.0, 1.0
        for n, letter in enumerate(text):
            model = first if n == 0 else second[text[0]]
            logits = torch.full((1, tokenizer.vocab_size), -torch.inf)
            logits[0, [97, 98]] = torch.tensor([float(model["a"]), float(model["b"])]).log()
            changed = process(ids, logits)
            left *= changed.exp().sum().item()  # the model's probability of what may come
            probability *= changed.softmax(-1)[0, ord(letter)].item()
            ids = torch.cat([ids, torch.tensor([[ord(letter)]])], dim=1)
        masked[text], weight[text] = probability, left
    assert masked == pytest.approx({"ab": 0.9, "ba": 0.1})
    weighted = {text: masked[text] * weight[text] for text in masked}
    assert weighted == pytest.approx({text: float(joint[text]) for text in masked})  # what makes up for it
