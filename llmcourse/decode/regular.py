r"""Regular expressions, read into a tree and compiled to an automaton over bytes.

A text fits when the whole of it does, as with `re.fullmatch`. What is read:

    a  é  \.  \n \t \r \f \v  \x41 \u00e9     a character; a backslash before a sign means the sign itself
    .                                         any character but a line break
    [a-z_]  [^"]  \d \w \s  \D \W \S          one character of a class, or none of it
    (...)  (?:...)  |                         groups and alternatives
    *  +  ?  {3}  {2,}  {2,5}                 how often

`\d \w \s` are those of ASCII (`re.ASCII`). `^` and `$` may stand where they change nothing: at the
beginning and the end of an alternative that lies in no group.
"""

from llmcourse.decode.automaton import Automaton
from llmcourse.decode.syntax import (
    ANY,
    Characters,
    Choice,
    Node,
    Ranges,
    Repeat,
    Sequence,
    compile_tree,
    complement,
    union,
)  # fmt: skip

MAX_COUNT, MAX_DEPTH = 10_000, 50
SUPPORTED = r"supported are characters, . [a-z] [^a-z] \d \w \s ( ) (?: ) | * + ? {m} {m,} {m,n}"
CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


def _ranges(*pieces: str) -> Ranges:
    return union((ord(piece[0]), ord(piece[-1])) for piece in pieces)


DIGITS, WORD, SPACE = _ranges("09"), _ranges("09", "AZ", "az", "_"), _ranges("\t\r", " ")
ECMA_SPACE = union(
    [
        *SPACE,
        *_ranges("\xa0", "\u1680", "\u2000\u200a", "\u2028\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"),
    ]
)
LINE_BREAK, ECMA_LINE_BREAK = _ranges("\n"), _ranges("\n", "\r", "\u2028\u2029")


class _Parser:
    """Reads from `pattern[at]` on; each method reads one kind of thing and returns its tree."""

    def __init__(self, pattern: str, ecma: bool):
        self.pattern, self.at, self.depth = pattern, 0, 0
        space = ECMA_SPACE if ecma else SPACE
        self.not_dot = ECMA_LINE_BREAK if ecma else LINE_BREAK
        self.classes = {"d": DIGITS, "w": WORD, "s": space}
        self.classes |= {name.upper(): complement(ranges) for name, ranges in self.classes.items()}

    def fail(self, what: str, at: int | None = None):
        at = self.at if at is None else at
        raise ValueError(f"the expression {self.pattern!r}, at character {at}: {what}; {SUPPORTED}")

    def next_is(self, signs: str) -> bool:
        return self.at < len(self.pattern) and self.pattern[self.at] in signs

    def take(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def whole(self, search: bool) -> Node:
        """Read everything: alternatives, each with an anchor at either end or without."""
        options, anything = [], Repeat(ANY)
        while True:
            parts = [] if self.take("^") or not search else [anything]
            parts.append(self.sequence())
            parts += [] if self.take("$") or not search else [anything]
            options.append(Sequence(tuple(parts)))
            if not self.take("|"):
                break
        if self.next_is(")"):
            self.fail("this ) closes nothing, write \\) for the sign itself")
        if self.at < len(self.pattern):
            self.fail("an anchor inside is not supported; write \\$ for the sign itself", self.at - 1)
        return Choice(tuple(options))

    def choice(self) -> Node:
        options = [self.sequence()]
        while self.take("|"):
            options.append(self.sequence())
        return Choice(tuple(options)) if len(options) > 1 else options[0]

    def sequence(self) -> Node:
        parts = []
        while self.at < len(self.pattern) and not self.next_is("|)$"):
            parts.append(self.repeated())
        return Sequence(tuple(parts))

    def repeated(self) -> Node:
        atom, start = self.atom(), self.at
        if self.take("*"):
            low, high = 0, None
        elif self.take("+"):
            low, high = 1, None
        elif self.take("?"):
            low, high = 0, 1
        elif self.take("{"):
            low, high = self.counts(start)
        else:
            return atom
        if self.next_is("?"):
            self.fail("a lazy quantifier is not supported. Leave the second ? out: the same texts fit")
        if self.next_is("*+{"):
            self.fail("a quantifier of a quantifier: put the first into a group, (?:...)")
        return Repeat(atom, low, high)

    def counts(self, start: int) -> tuple[int, int | None]:
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at : end if end >= 0 else self.at].partition(",")
        digits = [text for text in (low, high) if text]
        if not low or not all(text.isascii() and text.isdigit() for text in digits):
            self.fail("{ begins a count, such as {2}, {2,} or {2,5}; write \\{ for the sign itself", start)
        if any(len(text) > 9 or int(text) > MAX_COUNT for text in digits):
            self.fail(f"a count is at most {MAX_COUNT:,}: leave it out for no limit", start)
        self.at = end + 1
        least = int(low)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            self.fail(f"at least {least} and at most {most} exclude each other", start)
        return least, most

    def atom(self) -> Node:
        start = self.at
        sign = self.pattern[start]
        if sign == "(":
            return self.group()
        if sign == "[":
            return self.bracket()
        if sign == "\\":
            return Characters(self.escape())
        if sign in "*+?":
            self.fail(f"{sign} has nothing before it to repeat; write \\{sign} for the sign itself")
        if sign in "{^":
            reason = (
                "an anchor inside is not supported" if sign == "^" else "{ has nothing before it to repeat"
            )
            self.fail(f"{reason}; write \\{sign} for the sign itself")
        self.at += 1
        return Characters(complement(self.not_dot)) if sign == "." else Characters(self.single(sign, start))

    def single(self, sign: str, start: int) -> Ranges:
        if "\ud800" <= sign <= "\udfff":
            self.fail("half of a surrogate pair is no character", start)
        return _ranges(sign)

    def group(self) -> Node:
        start = self.at
        self.at += 1
        if self.take("?") and not self.take(":"):
            self.fail("lookaround, flags and named groups are not supported; use ( ) or (?: )", start)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"groups lie more than {MAX_DEPTH} deep", start)
        inside = self.choice()
        if self.next_is("$"):
            self.fail("an anchor inside is not supported; write \\$ for the sign itself")
        if not self.take(")"):
            self.fail("this ( is never closed; write \\( for the sign itself", start)
        self.depth -= 1
        return inside

    def escape(self) -> Ranges:
        """Read a backslash and what belongs to it."""
        start = self.at
        name = self.pattern[start + 1 : start + 2]
        self.at += 2
        if name in self.classes and name:
            return self.classes[name]
        if name in CONTROL and name:
            return _ranges(CONTROL[name])
        if name in ("x", "u"):
            size = 2 if name == "x" else 4
            digits = self.pattern[self.at : self.at + size]
            if len(digits) < size or not all(c in "0123456789abcdefABCDEF" for c in digits):
                self.fail(f"\\{name} is followed by {size} hexadecimal digits", start)
            self.at += size
            return self.single(chr(int(digits, 16)), start)
        if not name or name.isalnum():
            kind = "a backreference" if name.isdigit() else f"the escape \\{name}"
            self.fail(f"{kind} is not supported; write \\\\ for a backslash", start)
        return _ranges(name)

    def bracket(self) -> Node:
        start = self.at
        self.at += 1
        negated, found = self.take("^"), []
        while not self.take("]"):
            if self.at >= len(self.pattern):
                self.fail("this [ is never closed; write \\[ for the sign itself", start)
            first = self.at
            low = self.member()
            if self.next_is("-") and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member()
                ends = [low[0][0], low[-1][1], high[0][0], high[-1][1]]
                if ends[0] != ends[1] or ends[2] != ends[3] or ends[0] > ends[2]:
                    self.fail("a range goes from one character to a later one; write \\- for the sign", first)
                low = ((ends[0], ends[2]),)
            found += low
        if not found:
            self.fail("an empty class; write \\] for a bracket in it", start)
        return Characters(complement(found) if negated else union(found))

    def member(self) -> Ranges:
        if self.next_is("\\"):
            return self.escape()
        self.at += 1
        return self.single(self.pattern[self.at - 1], self.at - 1)


def parse(pattern: str, search: bool = False, ecma: bool = False) -> Node:
    r"""Return the tree of a regular expression.

    With `search`, it may lie anywhere in the text, unless `^` and `$` bind it to its ends; with `ecma`,
    `\s` and `.` are those of JavaScript: so JSON schema understands its `pattern`. Raises ValueError,
    with the place, for what is not supported and what cannot be read.

    >>> parse("a[0-9]+(?=b)")
    Traceback (most recent call last):
    ValueError: the expression 'a[0-9]+(?=b)', at character 7: lookaround, flags and named groups are not supported; use ( ) or (?: ); supported are characters, . [a-z] [^a-z] \d \w \s ( ) (?: ) | * + ? {m} {m,} {m,n}
    """
    if not isinstance(pattern, str):
        raise ValueError(f"the expression is {pattern!r}: give a text")
    return _Parser(pattern, ecma).whole(search)


def compile_regular(pattern: str) -> Automaton:
    r"""Return the automaton of the texts that fit `pattern` as a whole.

    Raises ValueError as `parse` does, when the automaton grows too large, and when no text fits.

    >>> date = compile_regular(r"\d{4}-\d\d-\d\d")
    >>> date.accepts("1616-04-23"), date.accepts("1616-4-23")
    (True, False)
    """
    return compile_tree(parse(pattern))
