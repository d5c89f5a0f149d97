"""From text to words, and how a tokenizer.json writes the bytes of a word."""

from collections.abc import Iterable, Iterator

import regex


def well_formed(text: str) -> str:
    """Return `text` with U+FFFD for each half of a surrogate pair, and the character for a whole one.

    >>> well_formed("half \\ud83d")
    'half �'
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def compile_pattern(pattern: str) -> regex.Pattern:
    """Return the pattern, compiled. Raises ValueError for one that cannot be read, or reads backwards.

    >>> compile_pattern("[a-z")
    Traceback (most recent call last):
    ValueError: the pattern '[a-z' cannot be read: unterminated character set at position 4
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} cannot be read: {error}") from None
    if compiled.flags & regex.REVERSE:
        raise ValueError(f"the pattern {pattern!r} reads backwards: leave out its flag (?r)")
    return compiled


def matches(pattern: regex.Pattern, text: str) -> list[str]:
    """Return the whole matches of `pattern` in `text`, where `findall` would return its groups.

    >>> matches(regex.compile("[a-z]+(ed|ing)"), "walked, walking")
    ['walked', 'walking']
    """
    return [m.group() for m in pattern.finditer(text)] if pattern.groups else pattern.findall(text)


def cut(pattern: regex.Pattern, text: str) -> list[str]:
    """Return the matches of `pattern` in `text` and, as words of their own, what lies between them.

    >>> cut(regex.compile("[a-z]+"), "it is 5")
    ['it', ' ', 'is', ' 5']
    """
    words = matches(pattern, text)
    if len("".join(words)) == len(text) and all(words):  # nothing lies between, as with GPT-2's pattern
        return words
    words, end = [], 0
    for match in pattern.finditer(text):
        words += (text[end : match.start()], match.group())
        end = match.end()
    return [word for word in (*words, text[end:]) if word]


def pieces(chunks: Iterable[str], size: int = 1 << 15) -> Iterator[str]:
    """Yield the text of `chunks`, at most `size` characters at a time, as `well_formed` has it."""
    half = ""
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            piece = half + chunk[start : start + size]
            half = piece[-1] if "\ud800" <= piece[-1] <= "\udbff" else ""  # its other half may follow
            yield well_formed(piece[: len(piece) - len(half)])
    yield well_formed(half)


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
