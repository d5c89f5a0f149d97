r"""Patterns in two engines: Python's `regex` cuts the words here, Onigmo cuts them in `tokenizers`.

Most of a pattern means the same in both, and some of it does not: `\w` matches ² in one of them, `$`
the end of each line, and `\p{N}{1,3}+` runs of any length.
"""

import regex

_SCRIPTS = "Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai"
_CATEGORIES = "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp"
_PROPERTY = "|".join(f"{_SCRIPTS} {_CATEGORIES}".split())
_SAME = rf"""\\[sSdDnrtfv] | \\[pP]\{{\^?(?:{_PROPERTY})\}} | \\x[0-7][0-9A-Fa-f] | \\u[0-9A-Fa-f]{{4}}
    | \\[^\p{{L}}\p{{M}}\p{{N}}]"""
_IN_SET = regex.compile(
    rf"(?P<same>{_SAME})|(?P<word>\\[wW])|(?P<bracket>\[(?!:))|(?P<and>&&+)|[^\\\[]", regex.X
)
_TOKEN = regex.compile(
    rf"""(?P<same>{_SAME} | [^\\\[\](){{}}*+?^$])
    | (?P<word>\\[wW]) | (?P<start>\^|\\A) | (?P<end>\$) | (?P<last>\\Z)
    | (?P<open>\((?:\?(?:i?:|>|<?[=!]))?) | (?P<close>\))
    | (?P<set>\[(?P<not>\^?)(?P<inside>(?:\\.|[^\]\\])+)\])
    | (?P<times>\{{(?:\d+(?:,\d*)?|,\d+)\}})(?P<mode>[+?]?) | (?P<sign>[*+?][+?]?)""",
    regex.X | regex.S,
)
_WORD = {r"\w": r"[[\w\u200c\u200d]&&[^²³¹¼½¾]]", r"\W": r"[^[\w\u200c\u200d]&&[^²³¹¼½¾]]"}
_FOLDS = regex.compile(r"ss|st|f[fil]|[^\x00-\x7f]", regex.I)  # letters that are equal to a group of letters


def to_onigmo(pattern: str) -> str:
    r"""Return the pattern for Onigmo that matches what `pattern` matches in Python's `regex`.

    Raises ValueError, and names the place, for what has no equal there or was not compared, and for
    a pattern that can match without a character: the engines go on differently after that.

    >>> to_onigmo(r"\p{N}{1,3}+| ?[a-z[]+|\s+$")
    '(?>\\p{N}{1,3})| ?[a-z\\[]+|\\s+(?=\\n?\\z)'
    """
    out: list[str] = []
    eating: list[str] = []  # the pattern without what only looks: does it need a character?
    opened: list[tuple[int, int, str]] = []  # where each open group begins in both, and how
    atom = place = 0  # where in `out` begins what a quantifier repeats; where we read
    if "(?i" in pattern and (fold := _FOLDS.search(pattern)):
        raise _unknown(pattern, fold.start())
    while place < len(pattern):
        token = _TOKEN.match(pattern, place)
        if token is None:
            raise _unknown(pattern, place)
        kind, text = token.lastgroup, token.group()
        around = {how[:3] for *_, how in opened}
        if "(?<" in around and (token["times"] or token["sign"]):
            raise _unknown(pattern, place)  # what stands before a place has one length there
        if "(?i" in around and regex.search(r"\\[pP]", text):
            raise _unknown(pattern, place)  # \p{Lu} keeps its case there
        eating.append("(?:)" if token["start"] or token["end"] or token["last"] else text)
        if token["times"] and out:
            if token["mode"] == "+":  # in Onigmo the plus would repeat it once more
                out[atom:] = ["(?>", *out[atom:], token["times"], ")"]
            else:  # and {3}? would be optional
                out.append(token["times"] if "," not in text else text)
        elif token["sign"]:
            out.append(text)
        elif token["close"] and opened:
            atom, start, how = opened.pop()
            out.append(text)
            if how[-1] in "=!":
                eating[start:] = ["(?:)"]
        else:
            atom = len(out)
            if token["open"]:
                opened.append((atom, len(eating) - 1, text))
            elif token["close"] or token["times"]:
                raise _unknown(pattern, place)
            replaced = {"word": _WORD.get(text), "start": r"\A", "end": r"(?=\n?\z)", "last": r"\z"}
            out.append(_set(pattern, token) if token["set"] else replaced.get(kind) or text)
        place = token.end()
    try:
        needs_none = regex.match("".join(eating), "")
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} cannot be read: {error}") from None
    if needs_none:
        raise _unknown(pattern, 0)
    return "".join(out)


def _set(pattern: str, token: regex.Match) -> str:
    inside, place, end = [], token.start("inside"), token.end("inside")
    while place < end:
        part = _IN_SET.match(pattern, place, end)
        if part is None:
            raise _unknown(pattern, place)
        text = part.group()
        beside = pattern[max(place - 2, token.start("inside")) : place] + pattern[place + 1 : place + 3]
        if text == "-" and regex.search(r"\\[sSdDwWpP]|\}", beside):
            text = r"\-"  # beside a class it is no range here, and may be one there
        replaced = {"word": _WORD.get(text), "bracket": r"\[", "and": "&" + r"\&" * (len(text) - 1)}
        inside.append(replaced.get(part.lastgroup) or text)
        place = part.end()
    return f"[{token['not']}{''.join(inside)}]"


def _unknown(pattern: str, place: int) -> ValueError:
    return ValueError(
        f"{pattern[place : place + 8]!r}, at character {place} of the pattern {pattern!r}, may mean something "
        "else in tokenizers than here, so it cannot be written to a tokenizer.json: spell it differently"
    )


def compile_for_tokenizers(pattern: str):
    """Return `to_onigmo(pattern)` as a `tokenizers.Regex`. Raises ValueError where that is not possible."""
    from tokenizers import Regex

    translated = to_onigmo(pattern)
    try:
        return Regex(translated)
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"tokenizers cannot read the pattern {pattern!r}: {error}") from None


def is_portable(pattern: str) -> bool:
    r"""Return whether `pattern` matches the same in both engines, as it stands.

    >>> is_portable(r" ?\p{L}+|\s+"), is_portable(r"\w+")
    (True, False)
    """
    try:
        return to_onigmo(pattern) == pattern
    except ValueError:
        return False
