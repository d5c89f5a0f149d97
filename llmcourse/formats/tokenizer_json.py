"""Reading the `tokenizer.json` of others: every setting is followed, or refused by name.

Such a file is a pipeline: added tokens are found, a normalizer changes the text, steps cut it into
words, a model cuts the words into tokens. `BPETokenizer` has one step and the model. What a file has
beyond that is left to the library that defines the format.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmcourse.formats.onigmo import is_portable
from llmcourse.tokenizer import END_OF_TEXT, GPT2_PATTERN, BPETokenizer
from llmcourse.words import from_printable, to_printable, well_formed

UTF8_BYTES = [*range(0xC0), *range(0xC2, 0xF5)]  # the bytes that a text can hold
PAD = "<|pad|>"


class FileTokenizer(BPETokenizer):
    """A byte-level BPE whose words are cut by `tokenizers`, with the settings of a file.

    `decode(encode(text))` is `text` as far as the file's own steps keep it: a normalizer such as NFC
    changes it, a prefix space is added, a step with `Removed` takes from it. `pattern` is None.
    `special_tokens` are the added tokens with `special`; the other ones belong to the text.
    """

    def __init__(self, engine):
        data = json.loads(engine.to_str())
        vocab, merges = _table(data)
        added = engine.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        token_bytes = _token_bytes(vocab, {token.content: i for i, token in added.items()})
        super().__init__(token_bytes, merges, special)
        self.pattern, self._engine = None, engine

    def with_special_tokens(self, names: Iterable[str]) -> "FileTokenizer":
        """Return a copy with the special tokens `names` behind its last id."""
        data, first = json.loads(self._engine.to_str()), self.vocab_size
        for token in data["added_tokens"]:  # those of the file keep their ids, too
            data["model"]["vocab"][token["content"]] = token["id"]
        for i, name in enumerate(dict.fromkeys(names)):
            _add_special(data, name, first + i)
        return FileTokenizer(_engine(data))

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of `text`; as in `BPETokenizer`, and with the steps of the file."""
        self._engine.encode_special_tokens = not allow_special
        return self._engine.encode(well_formed(text), add_special_tokens=False).ids

    def encode_iterable(self, chunks: Iterable[str], allow_special: bool = False) -> Iterator[int]:
        """Yield the ids of the concatenated `chunks`, which are all read first: a step may need them all."""
        yield from self.encode("".join(chunks), allow_special)

    def to_tokenizers(self):
        """Return a copy of the `tokenizers.Tokenizer`, with all settings of the file."""
        return _engine(json.loads(self._engine.to_str()))


def read(path: str | Path) -> BPETokenizer:
    """Return the tokenizer of a `tokenizer.json`, see `BPETokenizer.load`."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): is it a tokenizer.json, whole?") from None
    try:
        return from_settings(data)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def from_settings(data: dict) -> BPETokenizer:
    """Return the tokenizer of the content of a `tokenizer.json`. Raises ValueError naming what is refused."""
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise ValueError("has no model: it is not a tokenizer.json")
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in (*steps, *_steps(data.get("normalizer"), "normalizers"))]
    if model.get("type", "BPE") != "BPE" or kinds.count("ByteLevel") != 1:
        raise ValueError(
            f"holds a {model.get('type')} tokenizer that is not byte-level BPE: "
            "load it with transformers.AutoTokenizer instead"
        )
    settings = {name: data.get(name) for name in ("truncation", "padding")}
    padding = settings["padding"]
    longest = isinstance(padding, dict) and padding.get("strategy") == "BatchLongest"
    if longest and not padding.get("pad_to_multiple_of"):
        del settings["padding"]  # one text is the longest of its batch
    for name in ("dropout", "end_of_word_suffix", "continuing_subword_prefix"):
        settings[f"model.{name}"] = model.get(name)
    if found := {name: value for name, value in settings.items() if value}:
        raise ValueError(
            f"has settings with which ids are not simply those of the text's bytes, {found}: "
            "set them to null if you can do without, or use transformers.AutoTokenizer"
        )
    engine = _engine(data)  # so that from here on all has the form of a tokenizer.json
    vocab, merges = _table(data)
    if len(set(vocab.values())) < len(vocab):
        raise ValueError("gives one id to several tokens, so ids cannot be turned into text: renumber them")
    if missing := [byte for byte in UTF8_BYTES if to_printable(bytes([byte])) not in vocab]:
        raise ValueError(
            f"has no token for {len(missing)} of the bytes of UTF-8, such as {missing[0]:#04x}: text would "
            "vanish. Train it with initial_alphabet=ByteLevel.alphabet(), or use transformers.AutoTokenizer"
        )
    added = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    pattern = _pattern(data, steps)
    if pattern is None or not _ids_are_kept(vocab, added):
        tokenizer = FileTokenizer(engine)
    else:
        tokenizer = BPETokenizer(_token_bytes(vocab, added), merges, added, pattern)
    made = {*merges.values(), *(vocab[to_printable(bytes([byte]))] for byte in UTF8_BYTES)}
    if spoken := [name for name, i in tokenizer.special_tokens.items() if i in made]:
        raise ValueError(f"lets words make the special tokens {spoken}: a user's text could speak them")
    return tokenizer


def _steps(settings: dict | list | None, inner: str) -> list[dict]:
    if settings is None:
        return []
    if isinstance(settings, list):
        return [step for part in settings for step in _steps(part, inner)]
    if not isinstance(settings, dict):
        raise ValueError(f"has the step {settings!r}, which is none of tokenizers")
    return _steps(settings.get(inner), inner) if settings.get("type") == "Sequence" else [settings]


def _pattern(data: dict, steps: list[dict]) -> str | None:
    """Return the one pattern of a file that has no setting beyond those of BPETokenizer, else None."""
    *splits, last = steps or [{}]
    added = data.get("added_tokens") or []
    flags = ("lstrip", "rstrip", "single_word")
    ordinary = data["model"]["vocab"].keys() - {token["content"] for token in added}
    if (
        data.get("normalizer")
        or data["model"].get("ignore_merges")
        or len({token.get("normalized") for token in added}) > 1
        or not all(token.get("special") and not any(map(token.get, flags)) for token in added)
        or not all(to_printable(from_printable(text)) == text for text in ordinary)
        or last.get("type") != "ByteLevel"
        or last.get("add_prefix_space", True)
        or last.get("use_regex", True) != (not splits)
        or len(splits) > 1
    ):
        return None
    if not splits:
        return GPT2_PATTERN
    pattern = splits[0].get("pattern", {}).get("Regex")
    isolated = splits[0].get("behavior") == "Isolated"  # whether inverted or not
    return pattern if isolated and pattern and is_portable(pattern) else None


def _table(data: dict) -> tuple[dict[str, int], dict[tuple[int, int], int]]:
    """Return the vocabulary and the merges; of a pair that is listed twice, the last place counts."""
    vocab, merges = data["model"]["vocab"], {}
    for pair in data["model"]["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        merges.pop(key := (vocab[left], vocab[right]), None)
        merges[key] = vocab[left + right]
    return vocab, merges


def _token_bytes(vocab: dict[str, int], added: dict[str, int]) -> list[bytes]:
    token_bytes = [b""] * (max([*vocab.values(), *added.values()]) + 1)
    for text, i in vocab.items():
        token_bytes[i] = from_printable(text)
    for name, i in added.items():
        token_bytes[i] = name.encode("utf-8")
    return token_bytes


def _ids_are_kept(vocab: dict[str, int], added: dict[str, int]) -> bool:
    """Return whether `tokenizers` gives the added tokens the ids of the file: it counts them itself."""
    new = [i for name, i in added.items() if name not in vocab]
    known = all(vocab.get(name, i) == i for name, i in added.items())
    return known and (not new or [*vocab.values(), *new] == list(range(len(vocab) + len(new))))


def _engine(data: dict):
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(data))
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"cannot be read by tokenizers: {error}") from None


def _add_special(data: dict, name: str, i: int) -> None:
    data["model"]["vocab"][name] = i  # so that tokenizers keeps the id
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"].append({"id": i, "content": name, "special": True, **flags})


def to_fast(tokenizer: BPETokenizer):
    """Return a `transformers.PreTrainedTokenizerFast` that pads with a byte which no text holds.

    The byte's token is renamed "<|pad|>", so the vocabulary does not grow. Where merges use all those
    bytes there is no pad token, and transformers says so when it is to pad.
    """
    from transformers import PreTrainedTokenizerFast

    names = {}
    if END_OF_TEXT in tokenizer.special_tokens:
        names = dict(eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)
    data = json.loads(tokenizer.to_tokenizers().to_str())
    vocab = data["model"]["vocab"]
    in_merges = set("".join(part for pair in data["model"]["merges"] for part in pair))
    free = [to_printable(bytes([byte])) for byte in reversed(range(256)) if byte not in UTF8_BYTES]
    free = [text for text in free if text in vocab and text not in in_merges]
    if PAD in tokenizer.special_tokens:
        names["pad_token"] = PAD
    elif free and PAD not in vocab:
        names["pad_token"] = PAD
        _add_special(data, PAD, vocab.pop(free[0]))
    return PreTrainedTokenizerFast(tokenizer_object=_engine(data), **names)
