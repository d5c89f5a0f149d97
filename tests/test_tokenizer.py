"""The tokenizer against a slow BPE, the `tokenizers` library and GPT-2's own tokenizer."""

import base64
import json
import random
import re
import tracemalloc
import unicodedata
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import regex
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter

from llmcourse.bpe import apply_merges, learn_merges, replace_pair
from llmcourse.data.sources.gpt2_merges import load_gpt2_ranks
from llmcourse.data.sources.plays import load_plays
from llmcourse.tokenizer import END_OF_TEXT, GPT2_PATTERN, BPETokenizer
from llmcourse.words import cut, from_printable, to_printable

NASTY = [
    "",
    " ",
    "   ",
    "\n\n \t x  \r\n",
    "a b  c   d    e",
    "trailing   ",
    "I'll we've they're it's I'm he'd don't 'tis ''s 'll'ves I'LL",
    "'l", "'v e 'r", "rock'n'roll' 'r'e've",
    "中文分词很有趣,对吗?数字123。",
    "日本語とカタカナ ひらがな",
    "한국어 문장",
    "👩‍👩‍👧‍👦 family 🇨🇭🏴󠁧󠁢󠁥󠁮󠁧󠁿 👍🏽",
    "e\u0301a\u0300\u0323 nai\u0308ve vs naïve, Z̷a̸l̶g̵o̴",
    "\x00\x01\x1b[0m\x1c\x1d\x1e\x1f\x7f\x85\x9f",
    "nbsp\u00a0thin\u2009zero\u200bwidth\ufeffbom\u2028line\u2029para\u3000wide",
    "مرحبا بالعالم שלום १२३ ٣٤٥ ½ Ⅷ ²",
    "def f(x):\n    return x**2  # 100%\n\n\n",
    "<|endoftext|> <|end of text|> <|endoftext",
    "\U0010ffff\ue000\ufffd\ufffe",
]  # fmt: skip
CORPUS = [*NASTY, "the cat sat on the mat; the cats' hats. " * 4, "中文中文分词 naïve 👍🏽👍🏽    \n\n"] * 3


def random_text(rng: random.Random, length: int, old_only: bool = False) -> str:
    """Return characters from all of Unicode; `old_only` keeps those whose class all engines know."""
    text = []
    while len(text) < length:
        limit = rng.choice((0x80, 0x100, 0x3000, 0x10000, 0x110000))
        character = chr(rng.randrange(limit))
        category = unicodedata.category(character)
        old = unicodedata.ucd_3_2_0.category(character) == category != "Cn"
        if category != "Cs" and (old or not old_only):
            text.append(character * rng.choice((1, 1, 1, 2, 5)))
    return "".join(text)


def slow_merges(word_counts: dict[str, int], n_merges: int, min_count: int) -> list[tuple[int, int]]:
    words = {word: list(word.encode("utf-8")) for word in word_counts}
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, ids in words.items():
            for i in range(len(ids) - 1):
                pairs[ids[i], ids[i + 1]] += word_counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < min_count:
            break
        for ids in words.values():
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [256 + len(merges)]
                i += 1
        merges.append(best)
    return merges


@pytest.fixture(scope="module")
def small() -> BPETokenizer:
    return BPETokenizer.train(CORPUS, vocab_size=420)


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    return BPETokenizer.from_ranks(load_gpt2_ranks(quiet=True), {END_OF_TEXT: 50256})


@pytest.fixture(scope="module")
def real_gpt2() -> Tokenizer:
    """GPT-2 as transformers makes it from the table, with the word pattern built into `tokenizers`."""
    files = metadata.files("openai-whisper")
    (table,) = (path for path in files if path.name == "gpt2.tiktoken")

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(path):
            rows = map(bytes.split, Path(path).read_bytes().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in rows}

    engine = Converter(vocab_file=str(table.locate()), extra_special_tokens=[END_OF_TEXT]).converted()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return engine


# ---- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("min_count", [1, 2, 5])
@pytest.mark.parametrize("seed", range(8))
def test_merges_equal_recounting_everything_on_small_alphabets(seed, min_count):
    rng = random.Random(seed)
    alphabet = "ab中"[: 1 + seed % 3]  # few letters: overlaps such as aaaa, and many ties
    words = {}
    for _ in range(25):
        words["".join(rng.choices(alphabet, k=rng.randint(1, 20)))] = rng.randint(1, 6)
    assert learn_merges(words, 60, min_count) == slow_merges(words, 60, min_count)


@pytest.mark.parametrize("text", ["play", "nasty", "unicode"])
def test_merges_equal_recounting_everything_on_texts(text):
    rng = random.Random(3)
    texts = {"play": load_plays(quiet=True)[0].text[:6000], "nasty": "\n".join(CORPUS)}
    words = Counter(regex.findall(GPT2_PATTERN, texts.get(text) or random_text(rng, 800)))
    merges = learn_merges(words, 100)
    assert merges == slow_merges(words, 100, 2)
    assert len(merges) == 100 or text == "unicode"


@pytest.mark.parametrize(
    "word",
    [
        "a" * 37,
        "ab" * 20,
        "aab" * 13,
        "aabaa" * 9 + "a",
        "abba" * 9,
        "中文中文文文文文中文" * 5,
        "\x7f\x00" * 8,
    ],
)
def test_merges_equal_recounting_everything_in_one_long_word(word):
    for words in ({word: 1}, {word: 2, word[::-1]: 3, word[1:]: 1, "": 4}):
        for min_count in (1, 2, 3):
            assert learn_merges(words, 80, min_count) == slow_merges(words, 80, min_count)


@pytest.mark.parametrize("seed", range(6))
def test_merges_equal_recounting_everything_on_long_chinese_words(seed):
    rng = random.Random(seed)
    common = [chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(12)]
    words = Counter("".join(rng.choices(common, k=rng.randint(1, 60))) for _ in range(8))
    assert learn_merges(words, 150) == slow_merges(words, 150, 2)


def test_equally_frequent_pairs_merge_in_the_order_of_their_ids():
    assert learn_merges({"zy": 2, "ab": 2, "ba": 2}, 9) == [(97, 98), (98, 97), (122, 121)]


def test_no_words_no_merges_and_a_pair_must_occur():
    assert learn_merges({}, 5) == learn_merges({"": 3, "a": 9}, 5) == learn_merges({"ab": 2}, 0) == []
    with pytest.raises(ValueError, match="min_count=0"):
        learn_merges({"ab": 2}, 5, min_count=0)


def test_training_equals_tokenizers_where_the_tie_rules_agree():
    # `tokenizers` numbers bytes in the order of their printable characters, which is the order
    # of the bytes for a-z: with nothing else in the text, ties fall the same way.
    text = load_plays(quiet=True)[3].text[:60_000].lower()
    letters = "[a-z]+"
    ours = BPETokenizer.train([text], 256 + 400, special_tokens=(), pattern=letters)
    engine = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex("[^a-z]+"), behavior="removed")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 400,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator([text], trainer)
    theirs = [tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]]
    mine = [tuple(ours.token_bytes[i].decode() for i in pair) for pair in ours.merges]
    assert len(mine) == 400
    assert mine == theirs


def test_training_compresses_as_well_as_tokenizers():
    text = "".join(play.text[:20_000] for play in load_plays(quiet=True)[:3])
    ours = BPETokenizer.train([text], 800)
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=799, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator([text], trainer)
    assert len(ours.encode(text)) == pytest.approx(len(engine.encode(text).ids), rel=0.005)


def test_training_stops_when_pairs_run_out_and_numbers_special_tokens_last():
    tokenizer = BPETokenizer.train(["abab"], 1000, special_tokens=["<|a|>", "<|b|>"])
    assert list(tokenizer.merges) == [(97, 98)]
    assert tokenizer.special_tokens == {"<|a|>": 257, "<|b|>": 258}
    assert tokenizer.vocab_size == 259


def test_a_special_token_named_twice_counts_once():
    tokenizer = BPETokenizer.train(["abab"], 300, special_tokens=["<|a|>", "<|a|>", "<|b|>"])
    assert tokenizer.special_tokens == {"<|a|>": 257, "<|b|>": 258}
    assert tokenizer.decode([257, 258]) == "<|a|><|b|>"


def test_replace_pair_works_from_the_left():
    assert replace_pair((1, 1, 1), (1, 1), 9) == (9, 1)
    assert replace_pair((), (1, 1), 9) == ()
    assert replace_pair((1,), (1, 1), 9) == (1,)


# ---- the same ids as others -----------------------------------------------------------------


def test_ids_equal_those_of_tokenizers_and_transformers(small):
    engine, fast = small.to_tokenizers(), small.to_transformers()
    for text in NASTY:
        ids = small.encode(text, allow_special=True)
        assert ids == engine.encode(text).ids, repr(text)
        assert ids == fast(text)["input_ids"], repr(text)
        assert small.decode(ids) == engine.decode(ids, skip_special_tokens=False) == fast.decode(ids) == text
    assert fast.eos_token_id == small.special_tokens[END_OF_TEXT]
    assert len(fast) == small.vocab_size == engine.get_vocab_size()


def test_ids_equal_those_of_tokenizers_on_random_unicode(small):
    engine, rng = small.to_tokenizers(), random.Random(0)
    for _ in range(150):
        text = random_text(rng, 40, old_only=True)
        assert small.encode(text, allow_special=True) == engine.encode(text).ids, repr(text)


def test_ids_equal_those_of_gpt2(gpt2, real_gpt2):
    assert gpt2.vocab_size == real_gpt2.get_vocab_size() == 50257
    rng = random.Random(1)
    texts = [*NASTY, *(random_text(rng, 40, old_only=True) for _ in range(100))]
    for text in [*texts, load_plays(quiet=True)[7].text[:50_000]]:
        assert gpt2.encode(text, allow_special=True) == real_gpt2.encode(text).ids, repr(text[:200])
    assert gpt2.encode("Hello world") == [15496, 995]  # known from GPT-2's release


def test_gpt2_tokenizer_json_of_others_loads_with_the_same_ids(real_gpt2, tmp_path):
    real_gpt2.save(str(tmp_path / "tokenizer.json"))
    loaded = BPETokenizer.load(tmp_path / "tokenizer.json")
    for text in NASTY:
        assert loaded.encode(text, allow_special=True) == real_gpt2.encode(text).ids, repr(text)


def test_printable_characters_are_those_of_tokenizers():
    alphabet = {to_printable(bytes([i])) for i in range(256)}
    assert alphabet == set(pre_tokenizers.ByteLevel.alphabet())
    assert all(from_printable(to_printable(bytes([i]))) == bytes([i]) for i in range(256))
    ((text, _),) = pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str("é\n中\x00")
    assert text == to_printable("é\n中\x00".encode())


# ---- round trips ----------------------------------------------------------------------------


def test_any_text_round_trips(small, gpt2):
    rng = random.Random(2)
    for text in [*NASTY, *(random_text(rng, 60) for _ in range(200))]:
        for tokenizer in (small, gpt2):
            assert tokenizer.decode(tokenizer.encode(text)) == text
            assert tokenizer.decode(tokenizer.encode(text, allow_special=True)) == text


def test_any_bytes_decode(small):
    rng = random.Random(4)
    for _ in range(200):
        raw = rng.randbytes(rng.randint(0, 30))
        assert small.decode_bytes(raw) == raw  # ids below 256 are the bytes
        ids = [rng.randrange(small.vocab_size) for _ in range(20)]
        whole = b"".join(small.token_bytes[i] for i in ids)
        assert small.decode(ids) == whole.decode("utf-8", errors="replace")
    assert small.decode([0xE4, 0xB8]) == "\ufffd"  # a character cut in two
    assert small.tokens([97, small.special_tokens[END_OF_TEXT]]) == ["a", END_OF_TEXT]


def test_special_tokens_in_a_users_text_are_not_special(small):
    special = small.special_tokens[END_OF_TEXT]
    text = f"ignore this {END_OF_TEXT} and obey"
    assert special not in small.encode(text)
    assert special not in list(small.encode_iterable([text]))
    assert small.encode(text, allow_special=True).count(special) == 1
    assert small.decode(small.encode(text)) == text


def test_the_longest_special_token_wins():
    tokenizer = BPETokenizer.train(["abc " * 5], 300, special_tokens=["<|a|>", "<|a|>b"])
    assert tokenizer.encode("<|a|>b", allow_special=True) == [tokenizer.special_tokens["<|a|>b"]]


# ---- what a pattern leaves out, and what is no text -----------------------------------------

PATTERNS = [
    r"'(s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",  # groups
    r"((a)|(b))+|(?<name>c)d?",
    r"[a-z]+",  # gaps
    r"\p{N}{1,3}",
    r"never matched",  # no match at all
    r"(?<=t)h",
    r"\p{L}++|\p{N}{1,3}+|[^\w\s]|\s+$|^\s",  # means something else in Onigmo
    r"[[(&&a-z]+|[^[]",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_any_pattern_round_trips_with_the_ids_of_tokenizers(small, pattern, tmp_path):
    # tokenizers: Split(..., behavior="isolated") makes a piece of what lies between two matches
    tokenizer = BPETokenizer(small.token_bytes, small.merges, small.special_tokens, pattern)
    engine, rng = tokenizer.to_tokenizers(), random.Random(6)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = BPETokenizer.load(tmp_path / "tokenizer.json")
    texts = [*NASTY, "line one\nline two\n", "1234567 that", *(random_text(rng, 30, True) for _ in range(30))]
    for text in texts:
        ids = tokenizer.encode(text, allow_special=True)
        assert tokenizer.decode(ids) == text
        assert ids == engine.encode(text).ids == loaded.encode(text, allow_special=True), repr(text)
        assert list(tokenizer.encode_iterable([text], True)) == ids


def test_a_group_does_not_change_the_merges():
    with_group = GPT2_PATTERN.replace("(?:", "(")
    ours, plain = (BPETokenizer.train(CORPUS, 400, pattern=p) for p in (with_group, GPT2_PATTERN))
    assert ours.merges == plain.merges


@pytest.mark.parametrize(
    "pattern",
    [r"\b\w+", r"(a)\1", r"\X", r"(?i:ss)", r"a{e<=1}", r"(?<=a{1,2})b", r"b*", r"[[:punct:]]", r"\h"],
)
def test_a_pattern_with_another_meaning_in_tokenizers_is_refused(pattern, tmp_path):
    tokenizer = BPETokenizer.train(["abba! classes aa " * 3], 258, pattern=pattern)
    with pytest.raises(ValueError, match=r"at character \d+ of the pattern.*spell it differently"):
        tokenizer.save(tmp_path / "tokenizer.json")
    assert not list(tmp_path.iterdir())


def test_word_characters_are_those_of_pythons_regex_in_the_written_pattern(small):
    """Every assigned character, one at a time: tokenizers' own \\w has others, such as ²."""
    for pattern in (r"\w", r"\W", r"[\w-]", r"[^\W_]"):
        tokenizer = BPETokenizer(small.token_bytes, {}, small.special_tokens, pattern)
        split = tokenizer.to_tokenizers().pre_tokenizer
        text = "".join(chr(i) for i in range(0x10000) if unicodedata.ucd_3_2_0.category(chr(i))[0] != "C")
        text = "".join(f"{character}{character}" for character in text)  # a gap is two long
        ours = [len(word.encode()) for word in cut(regex.compile(pattern), text)]
        assert ours == [len(piece) for piece, _ in split.pre_tokenize_str(text)]


HALVES = [
    ("half \ud83d", "half \ufffd"),
    ("\udc00a\ud840\udc00 b", "\ufffda\U00020000 b"),
    ("\ud800" * 2, "\ufffd" * 2),
]


@pytest.mark.parametrize(("text", "wanted"), HALVES)
def test_half_a_surrogate_pair_is_read_as_tiktoken_reads_it(small, text, wanted):
    """tiktoken >= 0.3.3: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")."""
    assert wanted == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for allow_special in (False, True):
        ids = small.encode(wanted, allow_special)
        assert small.encode(text, allow_special) == ids
        for i in range(len(text) + 1):
            assert list(small.encode_iterable([text[:i], text[i:]], allow_special)) == ids
    assert small.decode(small.encode(text)) == wanted
    assert BPETokenizer.train([text * 3], 300).merges == BPETokenizer.train([wanted * 3], 300).merges


def test_a_byte_without_a_token_is_named():
    tokenizer = BPETokenizer.from_ranks({b"a": 0, b"b": 1, b"ab": 2}, {})
    assert tokenizer.encode("abb") == [2, 1]
    with pytest.raises(ValueError, match="no token for the byte 0xe4 of '中'"):
        tokenizer.encode("中")


def test_a_table_of_ranks_with_a_token_that_nothing_makes_is_refused():
    with pytest.raises(ValueError, match="token 3, b'abc', is not made of two"):
        BPETokenizer.from_ranks({b"a": 0, b"b": 1, b"c": 2, b"abc": 3}, {})


# ---- long words -----------------------------------------------------------------------------


@pytest.mark.parametrize("alphabet", ["a", "ab", "abc", "abcdefgh"])
def test_merges_are_applied_as_by_replacing_one_pair_after_the_other(alphabet):
    rng = random.Random(7)
    texts = ["".join(rng.choices(alphabet, k=40)) for _ in range(30)]
    tokenizer = BPETokenizer.train(texts, 256 + 60, special_tokens=[])
    for n in (0, 1, 2, 3, 10, 300):
        word = "".join(rng.choices(alphabet, k=n))
        ids = tuple(word.encode())
        for pair, new_id in tokenizer.merges.items():
            ids = replace_pair(ids, pair, new_id)
        assert tokenizer.encode(word) == list(ids)


@pytest.mark.parametrize("seed", range(20))
def test_merges_in_any_order_are_applied_as_by_tokenizers(seed):
    rng = random.Random(seed)  # a pair that a merge makes may have a lower rank, two pairs may make one token
    texts = ["".join(rng.choices("abc", k=30)) for _ in range(10)]
    merges = list(BPETokenizer.train(texts, 300, special_tokens=[]).merges.items())
    tokenizer = BPETokenizer.train(texts, 300, special_tokens=[])
    known = {token: i for i, token in enumerate(tokenizer.token_bytes)}
    for token in list(known):
        for i in range(1, len(token)):
            if token[:i] in known and token[i:] in known:
                merges.append(((known[token[:i]], known[token[i:]]), known[token]))
    rng.shuffle(merges)
    tokenizer = BPETokenizer(tokenizer.token_bytes, dict(merges), {})
    engine = tokenizer.to_tokenizers()
    for n in (5, 20, 100):
        text = "".join(rng.choices("abc", k=n))
        assert tokenizer.encode(text) == engine.encode(text).ids


def test_the_work_on_a_long_word_grows_with_its_length_not_with_its_square(gpt2):
    class Counted(dict):
        looked_up = 0

        def get(self, *args):
            Counted.looked_up += 1
            return super().get(*args)

    counts, rng, ranks = [], random.Random(8), Counted(gpt2._ranks)
    for n in (1000, 4000):
        ids = [gpt2._byte_ids[ord(c)] for c in rng.choices("abcdefghijklmnopqrstuvwxyz", k=n)]
        Counted.looked_up = 0
        apply_merges(ids, ranks, gpt2._new_ids)
        counts.append(Counted.looked_up / n)
    assert counts[1] < 1.2 * counts[0] < 8


# ---- streams --------------------------------------------------------------------------------


def chunked(text: str, rng: random.Random) -> list[str]:
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("allow_special", [False, True])
def test_encode_iterable_equals_encode_for_any_chunks(allow_special):
    specials = [END_OF_TEXT, "<|user|>", "<|user|>:", " s's"]
    tokenizer = BPETokenizer.train(CORPUS, 420, specials)
    rng = random.Random(5)
    pieces = [*specials, *specials, *NASTY, "  ", " ", "'", "l", "ve", "\n", "x", "<|", "user", "中"]
    for _ in range(400):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 8)))
        expected = tokenizer.encode(text, allow_special)
        chunks = chunked(text, rng)
        assert list(tokenizer.encode_iterable(chunks, allow_special)) == expected, chunks
        assert list(tokenizer.encode_iterable(iter(text), allow_special)) == expected, repr(text)


def test_encode_iterable_equals_encode_where_a_special_token_is_cut(small):
    text = f"a   {END_OF_TEXT}b    {END_OF_TEXT}  {END_OF_TEXT}"
    expected = small.encode(text, allow_special=True)
    assert expected.count(small.special_tokens[END_OF_TEXT]) == 3
    for i in range(len(text) + 1):
        for j in range(i, len(text) + 1):
            chunks = [text[:i], text[i:j], text[j:]]
            assert list(small.encode_iterable(chunks, allow_special=True)) == expected, chunks


def test_encode_iterable_reads_only_a_little_ahead(small):
    read = 0

    def chunks():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield "the cat sat "

    next(small.encode_iterable(chunks()))
    assert read < 5


@pytest.mark.parametrize("allow_special", [False, True])
def test_a_stream_takes_little_memory_however_large_its_blocks(small, allow_special):
    rng = random.Random(9)
    text = " ".join("".join(rng.choices("etaoin", k=rng.randint(1, 9))) for _ in range(40_000))
    assert len(text) > 200_000
    tracemalloc.start()
    count = sum(1 for _ in small.encode_iterable([text], allow_special))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 80_000
    assert peak < 8_000_000


def test_a_stream_reads_a_word_without_an_end_only_a_few_times(small):
    class Counted:
        groups, read = 0, 0

        def findall(self, text):
            Counted.read += len(text)
            return [text]

    tokenizer = BPETokenizer(small.token_bytes, small.merges, small.special_tokens)
    tokenizer._word = Counted()
    text = "ab" * 5000
    assert list(tokenizer.encode_iterable(iter(text))) == small.encode(text)
    assert Counted.read < 5 * len(text)


# ---- files ----------------------------------------------------------------------------------


def test_a_saved_tokenizer_is_the_same_for_us_and_for_tokenizers(tmp_path):
    specials = ["<|user|>", END_OF_TEXT, "<|réponse 中|>"]
    tokenizer = BPETokenizer.train(CORPUS, 400, specials)
    path = tmp_path / "deep" / "tokenizer.json"
    tokenizer.save(path)
    loaded, engine = BPETokenizer.load(path), Tokenizer.from_file(str(path))
    for name in ("token_bytes", "merges", "special_tokens", "pattern"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert list(loaded.merges) == list(tokenizer.merges)  # their order is their rank
    for text in [*NASTY, "x".join(specials)]:
        assert loaded.encode(text, True) == tokenizer.encode(text, True) == engine.encode(text).ids
    assert [path.name for path in path.parent.iterdir()] == ["tokenizer.json"]


def test_special_tokens_with_the_first_ids_keep_them(tmp_path):
    # BpeTrainer numbers special tokens from 0, before the bytes.
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[END_OF_TEXT, "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(CORPUS, trainer)
    engine.save(str(tmp_path / "theirs.json"))
    loaded = BPETokenizer.load(tmp_path / "theirs.json")
    loaded.save(tmp_path / "ours.json")
    again = Tokenizer.from_file(str(tmp_path / "ours.json"))
    assert loaded.special_tokens == {END_OF_TEXT: 0, "<|user|>": 1}
    for text in [*NASTY, f"the cat{END_OF_TEXT}<|user|> sat"]:
        ids = engine.encode(text).ids
        assert loaded.encode(text, True) == again.encode(text).ids == ids, repr(text)


def test_merges_written_as_one_string_load_too(small, tmp_path):
    data = json.loads(small.to_tokenizers().to_str())  # tokenizers before 0.20 wrote "a b"
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    (tmp_path / "old.json").write_text(json.dumps(data), encoding="utf-8")
    assert BPETokenizer.load(tmp_path / "old.json").merges == small.merges


# ---- errors ---------------------------------------------------------------------------------


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size=257 is too small.*at least 258"):
        BPETokenizer.train(["abc"], 257, special_tokens=["<|a|>", "<|b|>"])
    assert BPETokenizer.train(["abab"], 258, special_tokens=["<|a|>", "<|b|>"]).merges == {}


@pytest.mark.parametrize("texts", [[], [""], iter(["", ""])])
def test_empty_texts_are_refused(texts):
    with pytest.raises(ValueError, match="empty"):
        BPETokenizer.train(texts, 300)


@pytest.mark.parametrize("bad", [-1, 420, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(small, bad):
    assert small.vocab_size == 420
    with pytest.raises(ValueError, match=f"token id {bad} is outside this vocabulary of 420"):
        small.decode([97, bad])


@pytest.mark.parametrize("pattern", ["[a-z", "a**", r"\L<x>", "(?r)ab|.", r"(a)\2"])
def test_a_pattern_that_cannot_be_read_or_reads_backwards_is_refused_by_name(pattern):
    for make in (BPETokenizer.from_merges, lambda *rest: BPETokenizer.train(["ab"], 300, *rest[1:])):
        with pytest.raises(ValueError, match=re.escape(repr(pattern))):
            make([], [], pattern)


def test_a_special_token_without_a_name_is_refused(small):
    for make in (small.with_special_tokens, lambda names: BPETokenizer.train(["ab"], 300, names)):
        with pytest.raises(ValueError, match="has the name ''"):
            make([""])


@pytest.mark.parametrize("name", ["a", "the"])
def test_a_special_token_that_words_can_make_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*ordinary tokens too"):
        BPETokenizer.train(["the the the"], 300, special_tokens=[name])


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel", "BPE"])
def test_another_kind_of_tokenizer_json_is_refused(tmp_path, kind):
    vocab = {"[UNK]": 0, "a": 1}
    options = {"WordPiece": {"unk_token": "[UNK]"}, "WordLevel": {"unk_token": "[UNK]"}}
    model = getattr(models, kind)(vocab, *([[]] if kind == "BPE" else []), **options.get(kind, {}))
    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match=rf"{kind} tokenizer that is not byte-level BPE"):
        BPETokenizer.load(tmp_path / "other.json")
