"""Byte-level byte-pair encoding (BPE): from text to token ids and back, without unknown characters.

Text is cut into words by a pattern, a word is a sequence of bytes, and the most frequent pair of
neighbours becomes a new token, again and again. Any text round-trips.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import regex

from llmcourse.bpe import Pair, apply_merges, learn_merges, replace_pair
from llmcourse.formats.onigmo import compile_for_tokenizers
from llmcourse.support.files import atomic_write
from llmcourse.words import compile_pattern, cut, from_printable, matches, pieces, to_printable, well_formed

__all__ = ["END_OF_TEXT", "GPT2_PATTERN", "BPETokenizer", "from_printable", "learn_merges"]
__all__ += ["replace_pair", "to_printable"]

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END_OF_TEXT = "<|endoftext|>"


class BPETokenizer:
    """The tokenizer that the whole course uses.

    `token_bytes[i]` are the bytes of token i; `merges` maps a pair of ids to the id it becomes,
    in the order in which merges apply; `special_tokens` maps names such as "<|endoftext|>" to ids.
    What `pattern` leaves between two matches is a word of its own. Half a surrogate pair, which is
    valid in JSON and not in UTF-8, is read as U+FFFD, as tiktoken reads it.
    Raises ValueError when a special token is an ordinary one too (a user's text could speak it) or has
    no name, and for a pattern that `regex` cannot read.

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
        self._word = compile_pattern(pattern)
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._new_ids = list(merges.values())
        self._byte_ids = {token[0]: i for i, token in enumerate(token_bytes) if len(token) == 1}
        if "" in special_tokens:
            raise ValueError(
                "a special token has the name '', which stands everywhere in a text: give it a name"
            )
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
        """Learn merges from the words that `pattern` matches in `texts`.

        Ids 0-255 are bytes, then come the merges, then the special tokens.

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
        compiled = compile_pattern(pattern)
        word_counts: Counter[str] = Counter()
        for text in texts:
            word_counts.update(matches(compiled, well_formed(text)))
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

        The pair behind each token is found by encoding it with the tokens before it. Raises
        ValueError for a token that no two of them make.
        """
        tokens = sorted(ranks, key=ranks.get)
        token_bytes = [b""] * (max([*ranks.values(), *special_tokens.values()]) + 1)
        for token, i in [*ranks.items(), *((n.encode(), i) for n, i in special_tokens.items())]:
            token_bytes[i] = token
        tokenizer = cls([t for t in tokens if len(t) == 1], {}, {}, pattern)
        tokenizer._byte_ids = {token[0]: i for token, i in ranks.items() if len(token) == 1}
        for token in tokens:
            if len(token) > 1:
                pair = tokenizer._merge_word(token)
                if len(pair) != 2:
                    raise ValueError(f"token {ranks[token]}, {token!r}, is not made of two tokens before it")
                tokenizer.merges[pair] = ranks[token]
                tokenizer._ranks[pair] = len(tokenizer._ranks)
                tokenizer._new_ids.append(ranks[token])
        return cls(token_bytes, tokenizer.merges, special_tokens, pattern)

    def with_special_tokens(self, names: Iterable[str]) -> "BPETokenizer":
        """Return a copy with the special tokens `names` behind its last id."""
        names = list(dict.fromkeys(names))
        special = self.special_tokens | {name: self.vocab_size + i for i, name in enumerate(names)}
        token_bytes = [*self.token_bytes, *(name.encode("utf-8") for name in names)]
        return BPETokenizer(token_bytes, dict(self.merges), special, self.pattern)

    # ---- using one --------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return len(self.token_bytes)

    def _ordinary(self) -> dict[int, bytes]:
        special = set(self.special_tokens.values())
        return {i: token for i, token in enumerate(self.token_bytes) if token and i not in special}

    def _merge_word(self, word: bytes) -> tuple[int, ...]:
        if missing := [byte for byte in word if byte not in self._byte_ids]:
            raise ValueError(
                f"the vocabulary has no token for the byte {missing[0]:#04x} of "
                f"{word[:40].decode(errors='replace')!r}: it needs all bytes of the texts to encode"
            )
        return tuple(apply_merges([self._byte_ids[byte] for byte in word], self._ranks, self._new_ids))

    def _encode_words(self, words: Iterable[str]) -> Iterator[int]:
        known = self._cache.get
        for word in words:
            ids = known(word)
            if ids is None:
                ids = self._merge_word(word.encode("utf-8"))
                if len(word) <= 32:  # a longer one hardly comes again
                    if not self._cache or self._cache_bytes > 6_600_000:  # a bound on memory, no tuning knob
                        self._cache.clear()
                        self._cache_bytes = 0
                    self._cache[word] = ids
                    self._cache_bytes += 150 + 2 * len(word) + 8 * len(ids)
            yield from ids

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of `text`.

        Names of special tokens inside `text` are ordinary characters unless `allow_special`:
        a user's text must not be able to end a document or to speak in another role.
        """
        text = well_formed(text)
        if not allow_special:
            return list(self._encode_words(cut(self._word, text)))
        ids, start = [], 0
        for match in self._special.finditer(text):
            ids += self._encode_words(cut(self._word, text[start : match.start()]))
            ids.append(self.special_tokens[match.group()])
            start = match.end()
        return ids + list(self._encode_words(cut(self._word, text[start:])))

    def encode_iterable(self, chunks: Iterable[str], allow_special: bool = False) -> Iterator[int]:
        """Yield the ids of the concatenated `chunks` with little memory: `encode` on a stream.

        The last words of what was read are held back until more text decides where they end.
        """
        longest = max((len(name) for name in self.special_tokens), default=0)
        margin = longest + 1 if allow_special else 0  # + 1: a word of spaces sees one character ahead
        buffer, wanted = "", 0
        for piece in pieces(chunks):
            buffer += piece
            if len(buffer) < wanted:
                continue
            while allow_special and (match := self._special.search(buffer)):
                if match.start() + longest > len(buffer):  # more text may make it a longer name
                    break
                yield from self.encode(buffer[: match.end()], allow_special=True)
                buffer = buffer[match.end() :]
            words = cut(self._word, buffer)
            held = sum(len(words.pop()) for _ in range(min(3, len(words))))
            while words and held < margin:
                held += len(words.pop())
            yield from self._encode_words(words)
            buffer = buffer[len(buffer) - held :]
            wanted = 2 * held  # so a word that does not end is not read again for each piece
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
        """Return the same tokenizer as a `tokenizers.Tokenizer` (Rust).

        Raises ValueError for a pattern that its engine may understand otherwise.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        name = {i: to_printable(token) for i, token in self._ordinary().items()}
        pairs = [(name[left], name[right]) for left, right in self.merges]
        if clash := [text for text in name.values() if text in self.special_tokens]:
            raise ValueError(
                f"a tokenizer.json writes ordinary tokens as {clash}: rename these special tokens"
            )
        vocab = {text: i for i, text in name.items()} | self.special_tokens  # keeps their ids
        model = models.BPE(vocab=vocab, merges=pairs)
        engine = Tokenizer(model)
        split = pre_tokenizers.Split(compile_for_tokenizers(self.pattern), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        engine.decoder = decoders.ByteLevel()
        in_order = sorted(self.special_tokens, key=self.special_tokens.get)
        engine.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in in_order])
        return engine

    def to_transformers(self):
        """Return the same tokenizer as a `transformers.PreTrainedTokenizerFast`.

        Its pad token has the id of a byte that no UTF-8 text contains. If "<|endoftext|>" padded
        too, a collator would take each end for padding, and a model would never learn to stop
        (huggingface/transformers#23530).
        """
        from llmcourse.formats.tokenizer_json import to_fast

        return to_fast(self)

    def save(self, path: str | Path) -> None:
        """Write `path` in the `tokenizer.json` format that tokenizers and transformers read."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_tokenizers().to_str(pretty=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read a byte-level BPE `tokenizer.json`: ours or, for example, GPT-2's.

        The ids are those of `tokenizers.Tokenizer.encode(text, add_special_tokens=False)`. Where the
        file has settings that this class lacks (several patterns, a normalizer, added tokens that
        are not special), a `tokenizer_files.FileTokenizer` comes back, which leaves them to that
        library. Raises ValueError, and names the setting, where ids would not stand for bytes of the
        text, or would not always be the same.
        """
        from llmcourse.formats.tokenizer_json import read

        return read(path)
