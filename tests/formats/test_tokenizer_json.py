"""Settings of real tokenizer.json files against `tokenizers`: the same ids, or a refusal that names the setting."""

import itertools
import json
import random

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from llmcourse.formats.tokenizer_json import FileTokenizer
from llmcourse.tokenizer import END_OF_TEXT, GPT2_PATTERN, BPETokenizer

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TIKTOKEN = (  # as tiktoken itself writes cl100k, with possessive quantifiers
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

TEXTS = [
    "", " ", "the dog and the fox, 12345 times", " the  dog   ", "it's I'LL we've THEY'RE don't 'ſ",
    "中文分词很有趣,对吗?数字123。", "हिन्दी में किताब", "👩‍👩‍👧 family 🇨🇭 👍🏽", "line one\r\n\r\n  line two\n\n\n\tend  \n",
    "nbsp\u00a0thin\u2009zero\u200bwidth wide\u3000x", "e\u0301 naïve ﬁ Ångström K ² ½ Ⅷ ٣٤٥", "1 12 123 1234567 3.14 v2.0",
    "a<|endoftext|>b <|user|>  <mask> c", "def f(x):\n    return x**2  # 100%", "        eight    four  two", "x" * 50,
    "HTMLParser camelCase snake_case <b>tag</b> a@b.c", "dog!dog?(dog)[dog]{dog}", "half \ud83d a pair", "\x00\x1f\x7f\x85",
]  # fmt: skip
CORPUS = [text.encode("utf-8", "replace").decode() for text in TEXTS] * 4 + [
    "the dogs and the foxes walked " * 5
]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)


def to_bytes(prefix=False, pattern=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pattern, trim_offsets=True)


def blanks():
    return [AddedToken(" " * n, normalized=True, special=False) for n in (8, 4, 2)]


DIGITS, EACH_DIGIT = (
    pre_tokenizers.Digits(individual_digits=False),
    pre_tokenizers.Digits(individual_digits=True),
)
FAMILIES = {  # name: steps, normalizer, further added tokens, settings of the model
    "GPT-2": ([to_bytes(pattern=True)], None, [], {}),
    "GPT-4": ([split(CL100K), to_bytes()], None, [], {}),
    "GPT-4o": ([split(O200K), to_bytes()], None, [], {}),
    "tiktoken": ([split(TIKTOKEN), to_bytes()], None, [], {}),
    "Llama 3": ([split(CL100K), to_bytes()], None, [], {"ignore_merges": True}),
    "DeepSeek": (
        [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), to_bytes()],
        None,
        [AddedToken("<mask>", special=False, normalized=True)],
        {},
    ),
    "DeepSeek Coder": (
        [
            split("[\r\n]"),
            split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓ]+"),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            split(r"\s+$"),
            split("[一-龥ࠀ-一가-퟿]+"),
            EACH_DIGIT,
            to_bytes(),
        ],
        None,
        [],
        {},
    ),
    "Qwen": ([split(CL100K.replace("{1,3}", "")), to_bytes()], normalizers.NFC(), [], {}),
    "RoBERTa": ([to_bytes(True, True)], None, [AddedToken("<mask>", lstrip=True, special=True)], {}),
    "StarCoder": ([EACH_DIGIT, to_bytes(pattern=True)], None, [], {}),
    "Falcon": (
        [pre_tokenizers.Punctuation("contiguous"), to_bytes(pattern=True), DIGITS, split("[0-9][0-9][0-9]")],
        None,
        [],
        {},
    ),
    "BLOOM": ([split(BLOOM), to_bytes()], None, [], {}),
    "GPT-NeoX": ([to_bytes(pattern=True)], normalizers.NFC(), blanks(), {}),
    "phi-2": ([to_bytes(pattern=True)], None, blanks(), {}),
    "CLIP without its suffix": (
        [split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", True), to_bytes()],
        normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        ),
        [],
        {},
    ),
    "whole text": ([to_bytes()], normalizers.Prepend("_"), [], {}),
}


def make(steps, normalizer=None, added=(), model=None, specials=(END_OF_TEXT, "<|user|>")) -> dict:
    """Return the content of a tokenizer.json with these settings, trained on a few lines."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        engine.normalizer = normalizer
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(CORPUS, trainer)
    engine.add_special_tokens(list(specials))
    engine.add_tokens(list(added))
    engine.post_processor = processors.TemplateProcessing(
        f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)]
    )
    data = json.loads(engine.to_str())
    data["model"].update(model or {})
    if data["model"]["ignore_merges"]:  # only the look-up reaches some words now, as in Llama 3's table
        data["model"]["merges"] = data["model"]["merges"][::2]
    return data


def load(data: dict, folder) -> BPETokenizer:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return BPETokenizer.load(path)


def assert_same(tokenizer: BPETokenizer, data: dict, texts=TEXTS):
    engine = Tokenizer.from_str(json.dumps(data))
    for allow_special in (True, False):
        engine.encode_special_tokens = not allow_special
        for text in texts:
            mended = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            wanted = engine.encode(mended, add_special_tokens=False).ids
            assert tokenizer.encode(text, allow_special) == wanted, repr(text)
            assert list(tokenizer.encode_iterable([text[:5], text[5:]], allow_special)) == wanted, repr(text)


@pytest.mark.parametrize("name", FAMILIES)
def test_real_families_give_the_ids_of_tokenizers_and_go_through_every_round_trip(name, tmp_path):
    data = make(*FAMILIES[name])
    tokenizer = load(data, tmp_path)
    assert_same(tokenizer, data)
    tokenizer.save(tmp_path / "again.json")
    assert_same(BPETokenizer.load(tmp_path / "again.json"), data)
    engine, fast = tokenizer.to_tokenizers(), tokenizer.to_transformers()
    for text in TEXTS:
        if not text.isascii() and "\ud83d" in text:
            continue
        ids = tokenizer.encode(text, allow_special=True)
        assert engine.encode(text, add_special_tokens=False).ids == ids
        assert fast(text, add_special_tokens=False)["input_ids"] == ids, repr(text)
        if name not in ("CLIP without its suffix", "whole text", "RoBERTa", "Qwen", "GPT-NeoX"):
            assert tokenizer.decode(ids) == text
    fast.save_pretrained(tmp_path / "fast")
    theirs = BPETokenizer.load(tmp_path / "fast" / "tokenizer.json")
    assert [theirs.encode(t) for t in TEXTS] == [tokenizer.encode(t) for t in TEXTS]
    assert tokenizer.vocab_size == len(fast)


@pytest.mark.parametrize("name", FAMILIES)
def test_special_tokens_are_added_behind_the_last_id_of_any_file(name, tmp_path):
    tokenizer = load(make(*FAMILIES[name]), tmp_path)
    larger = tokenizer.with_special_tokens(["<|a|>", "<|b|>"])
    first = tokenizer.vocab_size
    assert [larger.special_tokens[n] for n in ("<|a|>", "<|b|>")] == [first, first + 1]
    assert larger.encode("dog<|b|>", True) == [*tokenizer.encode("dog"), first + 1]
    assert [larger.encode(t) for t in TEXTS] == [tokenizer.encode(t) for t in TEXTS]
    assert larger.to_tokenizers().encode("<|a|>", add_special_tokens=False).ids == [first]


def test_settings_that_the_class_has_are_read_without_the_library(tmp_path):
    for name in ("GPT-2", "GPT-4", "GPT-4o"):
        assert type(load(make(*FAMILIES[name]), tmp_path)) is BPETokenizer
    assert type(load(make(*FAMILIES["Llama 3"]), tmp_path)) is FileTokenizer


BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]
CUTS = [r"\p{N}{1,3}", r"[\r\n]", r"(\s)", "[aeiou]", CL100K]
STEPS = [split(pattern, *how) for pattern in CUTS for how in itertools.product(BEHAVIORS, (False, True))]
STEPS += [pre_tokenizers.Split(" ", behavior) for behavior in BEHAVIORS]
STEPS += [DIGITS, EACH_DIGIT, pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit()]
STEPS += [pre_tokenizers.Punctuation(behavior) for behavior in BEHAVIORS]
STEPS += [
    pre_tokenizers.CharDelimiterSplit("o"),
    pre_tokenizers.UnicodeScripts(),
    pre_tokenizers.BertPreTokenizer(),
]
LAST = [to_bytes(*flags) for flags in itertools.product((False, True), (False, True))]
NORMALIZERS = [
    None,
    normalizers.NFC(),
    normalizers.NFD(),
    normalizers.NFKC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
]
NORMALIZERS += [normalizers.Replace("o", "00"), normalizers.StripAccents()]
FLAGS = [dict(zip(("lstrip", "rstrip", "single_word", "normalized", "special"), bits, strict=True))
         for bits in itertools.product((False, True), repeat=5)]  # fmt: skip
MODEL = [
    {},
    {"ignore_merges": True},
    {"fuse_unk": True},
    {"byte_fallback": True},
    {"dropout": 0.0},
    {"unk_token": END_OF_TEXT},
]
REFUSED = [{"dropout": 0.1}, {"end_of_word_suffix": "</w>"}, {"continuing_subword_prefix": "##"}]


def test_any_combination_of_settings_gives_the_ids_of_tokenizers_or_is_refused_by_name(tmp_path):
    rng, understood, refused = random.Random(0), 0, []
    trained = make([to_bytes(pattern=True)])
    for i in range(500):
        steps = [*rng.choices(STEPS, k=rng.randint(0, 3)), rng.choice(LAST)]
        tokens = [
            AddedToken(t, **rng.choice(FLAGS))
            for t in rng.sample(["<mask>", "<b>", "fox ", "dogs and", "[é中]", "dog", "   "], 2)
        ]
        settings = rng.choice(REFUSED) if i % 10 == 0 else rng.choice(MODEL)
        engine = Tokenizer.from_str(json.dumps(trained))
        engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
        if normalizer := rng.choice(NORMALIZERS):
            engine.normalizer = normalizer
        engine.add_tokens(tokens)
        data = json.loads(engine.to_str())
        data["model"].update(settings)
        try:
            tokenizer = load(data, tmp_path)
        except ValueError as error:
            refused.append((settings, str(error)))
            continue
        assert settings not in REFUSED
        understood += 1
        assert_same(tokenizer, data, rng.sample(TEXTS, 5))
    for settings, message in refused:  # a special token that words can make is refused, too
        assert f"model.{next(iter(settings), '')}" in message or "special tokens" in message
    assert understood > 300


@pytest.mark.parametrize("name", ["GPT-2", "GPT-4", "Llama 3", "BLOOM"])
def test_odd_tables_give_the_ids_of_tokenizers(name, tmp_path):
    data = make(*FAMILIES[name])
    merges, vocab = data["model"]["merges"], data["model"]["vocab"]
    gaps = {text: 3 * i + 7 for text, i in vocab.items()}
    ids = {text: i for text, i in vocab.items() if text not in "ÿþÀÁ"}  # bytes that no text holds
    tables = [
        {"merges": merges + merges[:40]},  # a pair that is listed twice
        {"merges": merges[::-1]},
        {"merges": [" ".join(pair) for pair in merges]},
        {"vocab": gaps | {END_OF_TEXT: 2000, "<|user|>": 5}},
        {"vocab": ids | {END_OF_TEXT: 420, "<|user|>": 421}},
    ]
    for table in tables:
        changed = {**data, "model": {**data["model"], **table}}
        assert_same(load(changed, tmp_path), changed)
    renumbered = {**data, "added_tokens": [{**t, "id": t["id"] + 50} for t in data["added_tokens"]]}
    assert_same(load(renumbered, tmp_path), renumbered)


def broken(change) -> dict:
    data = make(*FAMILIES["GPT-2"])
    change(data)
    return data


BROKEN = {
    "truncation": lambda d: d.update(truncation={"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
    "padding": lambda d: d.update(padding={"strategy": {"Fixed": 9}, "pad_id": 0, "pad_type_id": 0, "pad_token": "x", "direction": "Right"}),
    "model.dropout": lambda d: d["model"].update(dropout=0.5),
    "model.end_of_word_suffix": lambda d: d["model"].update(end_of_word_suffix="</w>"),
    "model.continuing_subword_prefix": lambda d: d["model"].update(continuing_subword_prefix="##"),
    "no token for 1 of the bytes": lambda d: d["model"]["vocab"].pop("a") and d["model"].update(merges=[]),
    "Token `qq` out of vocabulary": lambda d: d["model"]["merges"].append(["q", "q"]),
    "one id to several tokens": lambda d: d["model"]["vocab"].update({"zzz": 5}),
    "not byte-level BPE": lambda d: d.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}),
    "cannot be read by tokenizers": lambda d: d.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "NoSuchStep"}, d["pre_tokenizer"]]}),
    "a user's text could speak them": lambda d: d["added_tokens"].append({"id": d["model"]["vocab"]["the"], "content": "the", "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}),
    "has no model": lambda d: d.pop("model"),
}  # fmt: skip


@pytest.mark.parametrize("named", BROKEN)
def test_what_is_refused_is_named_with_the_file(named, tmp_path):
    with pytest.raises(ValueError, match=named) as error:
        load(broken(BROKEN[named]), tmp_path)
    assert "tokenizer.json" in str(error.value)


ODD = [
    None,
    0,
    -1,
    1.5,
    "",
    "x",
    [],
    {},
    [1],
    ["a"],
    [[]],
    {"a": 1},
    True,
    {"type": "Sequence"},
    {"type": "Nope"},
]


def test_a_file_with_any_value_replaced_or_left_out_gives_the_ids_of_tokenizers_or_is_refused(tmp_path):
    rng, understood, refused = random.Random(0), 0, 0
    files = [json.dumps(make(*FAMILIES[name])) for name in ("GPT-2", "DeepSeek", "Qwen", "RoBERTa")]
    for _ in range(200):
        data = node = json.loads(rng.choice(files))
        while node:  # down to any depth
            parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = node[key] if isinstance(node[key], dict | list) and rng.random() < 0.7 else None
        parent[key] = rng.choice(ODD)
        if rng.random() < 0.3:
            del parent[key]
        try:
            tokenizer = load(data, tmp_path)
        except ValueError as error:
            refused += "tokenizer.json" in str(error)
            continue
        understood += 1
        assert_same(tokenizer, data, rng.sample(TEXTS, 3))
    assert understood + refused == 200
    assert min(understood, refused) > 20


def test_padding_to_the_longest_leaves_one_text_as_it_is(tmp_path):
    data = make(*FAMILIES["Qwen"])
    engine = Tokenizer.from_str(json.dumps(data))
    engine.enable_padding()  # what transformers writes after a call with padding=True
    data["padding"] = json.loads(engine.to_str())["padding"]
    assert_same(load(data, tmp_path), data, TEXTS[:5])
    data["padding"]["pad_to_multiple_of"] = 8
    with pytest.raises(ValueError, match="padding"):
        load(data, tmp_path)


def test_a_file_that_is_not_json_or_has_a_mark_of_byte_order(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer.json is not JSON"):
        BPETokenizer.load(path)
    data = make(*FAMILIES["GPT-2"])
    path.write_text(json.dumps(data), encoding="utf-8-sig")
    assert_same(BPETokenizer.load(path), data, TEXTS[:3])


# ---- padding --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "GPT-2", "Llama 3", "Qwen"])
def test_the_end_is_learned_and_padding_is_not(name, tmp_path):
    """huggingface/transformers#23530: the collator takes each pad token out of the labels."""
    tokenizer = load(make(*FAMILIES[name]), tmp_path) if name else BPETokenizer.train(CORPUS, 400)
    end, fast = tokenizer.special_tokens[END_OF_TEXT], tokenizer.to_transformers()
    rows = [{"input_ids": [*tokenizer.encode(text), end]} for text in TEXTS]
    batch = DataCollatorForLanguageModeling(fast, mlm=False)(rows)
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        n = len(row["input_ids"])
        assert labels == row["input_ids"] + [-100] * (len(labels) - n)
        assert ids == row["input_ids"] + [fast.pad_token_id] * (len(ids) - n)
    assert fast.pad_token_id < tokenizer.vocab_size == len(fast)  # no new row in the model
    for text in ("ÿ þ À", "a\xff\xfe"):  # the characters that would write those bytes
        assert fast(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert fast.decode(tokenizer.encode(text)) == text


def test_a_pad_token_of_the_tokenizer_is_used_and_without_a_free_byte_there_is_none():
    named = BPETokenizer.train(CORPUS, 300, [END_OF_TEXT, "<|pad|>"])
    assert named.to_transformers().pad_token_id == named.special_tokens["<|pad|>"]
    merges = [(b, 97) for b in (0xC0, 0xC1, *range(0xF5, 0x100))]
    fast = BPETokenizer.from_merges(merges).to_transformers()
    assert isinstance(fast, PreTrainedTokenizerFast)
    assert fast.pad_token is None


def test_a_special_token_that_spells_an_ordinary_one_is_refused():
    tokenizer = BPETokenizer.train([" low low low"], 300, ["Ġlow"])
    with pytest.raises(ValueError, match=r"\['Ġlow'\]: rename"):
        tokenizer.to_tokenizers()
    assert tokenizer.pattern == GPT2_PATTERN
