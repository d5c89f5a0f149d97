"""Byte-level byte-pair encoding (BPE): from text to token ids and back, without unknown characters.

Text is cut into words by a pattern, a word is a sequence of bytes, and the most frequent pair of
neighbours becomes a new token, again and again. Any bytes round-trip.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import regex

from llmcourse.bpe import Pair, learn_merges, replace_pair
from llmcourse.runtime import atomic_write

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END_OF_TEXT = "<|endoftext|>"


class BPETokenizer:
    """The tokenizer that the whole course uses.

    `token_bytes[i]` are the bytes of token i; `merges` maps a pair of ids to the id it becomes,
    in the order in which merges apply; `special_tokens` maps names such as "<|endoftext|>" to ids.
    Raises ValueError when a special token is an ordinary one too: a user's text could speak it.

    >>> tokenizer = BPETokenizer.train(["low lower lowest"] * 3, vocab_size=260)
    >>> tokenizer.tokens(tokenizer.encode("low lower"))
    ['low', ' low', 'e', 'r']
    """

    def __init__(
        self,
        token_bytes: list[bytes],
        merges: dict[Pair, int],
        special_tokens: dict[str, int],
        pattern: str = GPT2_PATTERN,
    ):
        self.token_bytes, self.merges, self.special_tokens = token_bytes, merges, special_tokens
        self.pattern = pattern
        self._word = regex.compile(pattern)
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._byte_ids = {token: i for i, token in enumerate(token_bytes) if len(token) == 1}
        ordinary = self._ordinary()
        if clash := [name for name in special_tokens if name.encode("utf-8") in ordinary.values()]:
            raise ValueError(
                f"the special tokens {clash} are ordinary tokens too: choose names that words do "
                "not make, such as '<|user|>'"
            )
        names = sorted(special_tokens, key=len, reverse=True)
        self._special = regex.compile("|".join(map(regex.escape, names)) or r"(?!)")
        self._cache: dict[str, tuple[int, ...]] = {}

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        pattern: str = GPT2_PATTERN,
    ) -> "BPETokenizer":
        """Learn merges from `texts`: ids 0-255 are bytes, then merges, then special tokens.

        Raises ValueError when the vocabulary cannot hold the bytes and the special tokens, or
        when the texts are empty. The vocabulary is smaller when the texts run out of pairs.
        """
        special_tokens = list(dict.fromkeys(special_tokens))
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: 256 bytes and {len(special_tokens)} special "
                f"tokens need at least {256 + len(special_tokens)}"
            )
        find_words = regex.compile(pattern).findall
        word_counts: Counter[str] = Counter()
        for text in texts:
            word_counts.update(find_words(text))
        if not word_counts:
            raise ValueError("the training texts are empty: give at least one non-empty string")
        return cls.from_merges(learn_merges(word_counts, n_merges), special_tokens, pattern)

    @classmethod
    def from_merges(
        cls, merges: list[Pair], special_tokens: Iterable[str] = (END_OF_TEXT,), pattern=GPT2_PATTERN
    ) -> "BPETokenizer":
        """Build from pairs of ids, where ids 0-255 are bytes and merge k makes id 256 + k."""
        token_bytes = [bytes([i]) for i in range(256)]
        for left, right in merges:
            token_bytes.append(token_bytes[left] + token_bytes[right])
        table = {pair: 256 + k for k, pair in enumerate(merges)}
        special = {name: len(token_bytes) + i for i, name in enumerate(dict.fromkeys(special_tokens))}
        token_bytes += [name.encode("utf-8") for name in special]
        return cls(token_bytes, table, special, pattern)

    @classmethod
    def from_ranks(
        cls, ranks: dict[bytes, int], special_tokens: dict[str, int], pattern: str = GPT2_PATTERN
    ) -> "BPETokenizer":
        """Build from a table of bytes -> id in merge order, the form in which GPT-2's is shared.

        The pair behind each token is found by encoding it with the tokens before it.
        """
        tokens = sorted(ranks, key=ranks.get)
        token_bytes = [b""] * (max([*ranks.values(), *special_tokens.values()]) + 1)
        for token, i in [*ranks.items(), *((n.encode(), i) for n, i in special_tokens.items())]:
            token_bytes[i] = token
        tokenizer = cls([t for t in tokens if len(t) == 1], {}, {}, pattern)
        tokenizer._byte_ids = {token: i for token, i in ranks.items() if len(token) == 1}
        for token in tokens:
            if len(token) > 1:
                pair = tokenizer._merge_word(token)
                tokenizer.merges[pair] = ranks[token]
                tokenizer._ranks[pair] = len(tokenizer._ranks)
        return cls(token_bytes, tokenizer.merges, special_tokens, pattern)

    # ---- using one --------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return len(self.token_bytes)

    def _ordinary(self) -> dict[int, bytes]:
        special = set(self.special_tokens.values())
        return {i: token for i, token in enumerate(self.token_bytes) if token and i not in special}

    def _merge_word(self, word: bytes) -> tuple[int, ...]:
        ids = tuple(self._byte_ids[word[i : i + 1]] for i in range(len(word)))
        while len(ids) > 1:
            last = len(self._ranks)
            pair = min(pairwise(ids), key=lambda p: self._ranks.get(p, last))
            if pair not in self._ranks:
                break
            ids = replace_pair(ids, pair, self.merges[pair])
        return ids

    def _encode_words(self, words: Iterable[str]) -> Iterator[int]:
        for word in words:
            ids = self._cache.get(word)
            if ids is None:
                if len(self._cache) > 200_000:  # a bound on memory, not a tuning knob
                    self._cache.clear()
                ids = self._cache[word] = self._merge_word(word.encode("utf-8"))
            yield from ids

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of `text`.

        Names of special tokens inside `text` are ordinary characters unless `allow_special`:
        a user's text must not be able to end a document or to speak in another role.
        """
        if not allow_special:
            return list(self._encode_words(self._word.findall(text)))
        ids, start = [], 0
        for match in self._special.finditer(text):
            ids += self._encode_words(self._word.findall(text[start : match.start()]))
            ids.append(self.special_tokens[match.group()])
            start = match.end()
        return ids + list(self._encode_words(self._word.findall(text[start:])))

    def encode_iterable(self, chunks: Iterable[str], allow_special: bool = False) -> Iterator[int]:
        """Yield the ids of the concatenated `chunks` with little memory: `encode` on a stream.

        The last words of what was read are held back until more text decides where they end.
        """
        longest = max((len(name) for name in self.special_tokens), default=0)
        margin = longest + 1 if allow_special else 0  # + 1: a word of spaces sees one character ahead
        buffer = ""
        for chunk in chunks:
            buffer += chunk
            while allow_special and (match := self._special.search(buffer)):
                if match.start() + longest > len(buffer):  # more text may make it a longer name
                    break
                yield from self.encode(buffer[: match.end()], allow_special=True)
                buffer = buffer[match.end() :]
            words = list(self._word.finditer(buffer))[:-3]
            words = [word for word in words if word.end() <= len(buffer) - margin]
            yield from self._encode_words(word.group() for word in words)
            buffer = buffer[words[-1].end() :] if words else buffer
        yield from self.encode(buffer, allow_special)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`. Raises ValueError for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"token id {i} is outside this vocabulary of {self.vocab_size}: "
                    "the ids come from another tokenizer"
                )
        return b"".join(self.token_bytes[i] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 (a cut character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id on its own, to look at."""
        return [self.decode([i]) for i in ids]

    # ---- keeping and sharing one ------------------------------------------------------------

    def to_tokenizers(self):
        """Return the same tokenizer as a `tokenizers.Tokenizer` (Rust)."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

        name = {i: to_printable(token) for i, token in self._ordinary().items()}
        pairs = [(name[left], name[right]) for left, right in self.merges]
        vocab = {text: i for i, text in name.items()} | self.special_tokens  # keeps their ids
        model = models.BPE(vocab=vocab, merges=pairs)
        engine = Tokenizer(model)
        split = pre_tokenizers.Split(Regex(self.pattern), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        engine.decoder = decoders.ByteLevel()
        in_order = sorted(self.special_tokens, key=self.special_tokens.get)
        engine.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in in_order])
        return engine

    def to_transformers(self):
        """Return the same tokenizer as a `transformers.PreTrainedTokenizerFast`."""
        from transformers import PreTrainedTokenizerFast

        names = {}
        if END_OF_TEXT in self.special_tokens:
            names = dict(eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, pad_token=END_OF_TEXT)
        return PreTrainedTokenizerFast(tokenizer_object=self.to_tokenizers(), **names)

    def save(self, path: str | Path) -> None:
        """Write `path` in the `tokenizer.json` format that tokenizers and transformers read."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_tokenizers().to_str(pretty=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read a byte-level BPE `tokenizer.json`: ours or, for example, GPT-2's.

        Raises ValueError when the file holds another kind of tokenizer.
        """
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        steps = data.get("pre_tokenizer") or {}
        steps = steps.get("pretokenizers", [steps])
        if data["model"].get("type") != "BPE" or "ByteLevel" not in [s.get("type") for s in steps]:
            raise ValueError(
                f"{path} holds a {data['model'].get('type')} tokenizer that is not byte-level BPE: "
                "load it with transformers.AutoTokenizer instead"
            )
        vocab = {from_printable(text): i for text, i in data["model"]["vocab"].items()}
        special = {t["content"]: t["id"] for t in data["added_tokens"]}
        token_bytes = [b""] * (max([*vocab.values(), *special.values()]) + 1)
        for token, i in [*vocab.items(), *((n.encode(), i) for n, i in special.items())]:
            token_bytes[i] = token
        merges = {}
        for pair in data["model"]["merges"]:
            left, right = map(from_printable, pair.split(" ") if isinstance(pair, str) else pair)
            merges[vocab[left], vocab[right]] = vocab[left + right]
        split = next((s["pattern"]["Regex"] for s in steps if s.get("type") == "Split"), GPT2_PATTERN)
        return cls(token_bytes, merges, special, split)


def _printable_table() -> dict[int, str]:
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that print as themselves
    others = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + n) for n, b in enumerate(others)}


_TO_PRINTABLE = _printable_table()
_FROM_PRINTABLE = {character: byte for byte, character in _TO_PRINTABLE.items()}


def to_printable(token: bytes) -> str:
    """Write bytes with one printable character each, as tokenizer.json files do.

    >>> to_printable(b" low")
    'Ġlow'
    """
    return "".join(_TO_PRINTABLE[byte] for byte in token)


def from_printable(text: str) -> bytes:
    """Undo `to_printable`; text with other characters, such as a special token, is kept as UTF-8."""
    if all(character in _FROM_PRINTABLE for character in text):
        return bytes(_FROM_PRINTABLE[character] for character in text)
    return text.encode("utf-8")
