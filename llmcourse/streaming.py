"""Streaming: a text is shown while it is written, one piece after another, and no character by halves."""

import codecs
from collections.abc import Iterable, Iterator

from llmcourse.support.inputs import plain, whole
from llmcourse.tokenizer import BPETokenizer


def stream_text(tokenizer: BPETokenizer, token_ids: Iterable) -> Iterator[str]:
    """Yield the text of `token_ids` piece by piece, as soon as it is certain.

    A token is a few bytes, and a character may need more than one token: its first bytes wait for
    the rest. The pieces together are `tokenizer.decode` of all ids; bytes that are not UTF-8
    become U+FFFD there and here. `token_ids` are whole numbers, or the tensors (1,) of
    `generate.generate_tokens`. Raises ValueError for a step of several rows, and for an id outside
    the vocabulary.

    >>> tokenizer = BPETokenizer.from_merges([])  # each token is one byte
    >>> ids = tokenizer.encode("a é!")
    >>> tokenizer.tokens(ids)
    ['a', ' ', '�', '�', '!']
    >>> list(stream_text(tokenizer, ids))
    ['a', ' ', 'é', '!']
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token_id in token_ids:
        piece = decoder.decode(tokenizer.decode_bytes([_one(token_id)]))
        if piece:
            yield piece
    if rest := decoder.decode(b"", final=True):  # the text ends inside a character
        yield rest


def _one(token_id) -> int:
    row = plain(token_id, "a step") if getattr(token_id, "ndim", 0) else [token_id]
    if len(row) != 1:
        raise ValueError(
            f"a step has {len(row)} tokens: stream one row, such as new[0] for new in generate_tokens(...)"
        )
    return whole(row[0], "a token id", least=0)
