"""How JSON writes a value: trees of strings, of numbers within limits, and of dates.

Every character of a string has one spelling, that of `json.dumps(..., ensure_ascii=False)`: itself, a
short escape such as \\n, or \\u001f for the control characters that have none. So a text stands for one
value, a length counts characters, and two conditions on a string can be joined. A number is that of
RFC 8259, section 6, but an exponent has at most two digits: 1e999 is read as infinity in most places.
"""

from decimal import Decimal

from llmcourse.decode.regular import parse
from llmcourse.decode.syntax import (
    DIGIT,
    EMPTY,
    Both,
    Characters,
    Choice,
    Node,
    Repeat,
    Sequence,
    complement,
    literal,
    union,
)  # fmt: skip

SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
CONTROL = [chr(i) for i in range(32) if chr(i) not in SHORT]
INTEGER = parse("0|-?[1-9][0-9]*")
NUMBER = parse(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
YEAR = r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
LEAP_YEAR = r"(\d\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
DATE = parse(  # RFC 3339, full-date; the year 0000 is left out
    rf"{YEAR}-(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|{YEAR}-(0[469]|11)-(0[1-9]|[12]\d|30)"
    rf"|{YEAR}-02-(0[1-9]|1\d|2[0-8])|{LEAP_YEAR}-02-29"
)
DIGITS, EXHAUSTED = Repeat(DIGIT), Repeat(literal("0"))


# ---- strings ------------------------------------------------------------------------------------


def _spelled(characters: Characters) -> Node:
    """Return how JSON spells one of these characters inside a string."""

    def inside(character: str) -> bool:
        return any(low <= ord(character) <= high for low, high in characters.ranges)

    escaped = union([(0, 31), (ord('"'),) * 2, (ord("\\"),) * 2])
    plain = complement([*complement(characters.ranges), *escaped])
    options = [Characters(plain)] if plain else []
    if letters := [(ord(letter),) * 2 for character, letter in SHORT.items() if inside(character)]:
        options.append(Sequence((literal("\\"), Characters(union(letters)))))
    for sixteen in "01":  # \u0000 to \u000f and \u0010 to \u001f
        codes = [f"{ord(c):02x}" for c in CONTROL if inside(c)]
        if last := [(ord(code[1]),) * 2 for code in codes if code[0] == sixteen]:
            options.append(Sequence((literal(f"\\u00{sixteen}"), Characters(union(last)))))
    return Choice(tuple(options))


def spelled(tree: Node) -> Node:
    """Return the tree of the same texts as JSON spells them between the quotation marks."""
    match tree:
        case Characters():
            return _spelled(tree)
        case Sequence():
            return Sequence(tuple(map(spelled, tree.parts)))
        case Choice():
            return Choice(tuple(map(spelled, tree.options)))
        case Repeat():
            return Repeat(spelled(tree.part), tree.low, tree.high)
    return Both(spelled(tree.left), spelled(tree.right))


def string(tree: Node) -> Node:
    r"""Return the tree of JSON strings whose value fits `tree`.

    >>> from llmcourse.decode.syntax import compile_tree
    >>> compile_tree(string(parse('say "[a-z]+"\n?'))).accepts(r'"say \"yes\"\n"')
    True
    """
    return Sequence((literal('"'), spelled(tree), literal('"')))


# ---- numbers ------------------------------------------------------------------------------------


def _digit(low: int, high: int) -> Node:
    return Characters(((48 + low, 48 + high),))


def _same_length(low: str, high: str) -> Node:
    """Return the tree of the whole numbers from `low` to `high`, all written with as many digits."""
    if not low:
        return EMPTY
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return Sequence((_digit(first, last), Repeat(DIGIT, rest, rest)))
    if first == last:
        return Sequence((_digit(first, first), _same_length(low[1:], high[1:])))
    options: list[Node] = [Sequence((_digit(first, first), _same_length(low[1:], "9" * rest)))]
    if first + 1 < last:
        options.append(Sequence((_digit(first + 1, last - 1), Repeat(DIGIT, rest, rest))))
    return Choice((*options, Sequence((_digit(last, last), _same_length("0" * rest, high[1:])))))


def _natural(low: int, high: int | None) -> list[Node]:
    """Return the trees of the whole numbers from `low` >= 0 on, without leading zeros, one for each length."""
    options, n = [], len(str(low))
    last = n if high is None else len(str(high))
    for size in range(n, last + 1):
        least = low if size == n else 10 ** (size - 1)
        most = high if high is not None and size == last else 10**size - 1
        if least <= most:
            options.append(_same_length(str(least), str(most)))
    return options if high is not None else [*options, Sequence((_digit(1, 9), Repeat(DIGIT, n, None)))]


def integer(low: int | None = None, high: int | None = None) -> Node | None:
    """Return the tree of the whole numbers from `low` to `high`, None if there are none.

    >>> from llmcourse.decode.syntax import compile_tree
    >>> numbers = compile_tree(integer(-5, 120))
    >>> [n for n in range(-999, 1000) if numbers.accepts(str(n))] == list(range(-5, 121))
    True
    """
    options: list[Node] = []
    if high is None or high >= max(low or 0, 0):
        options += _natural(max(low or 0, 0), high)
    if low is None or low < 0:
        least, most = (1 if high is None else max(1, -high)), (None if low is None else -low)
        if most is None or least <= most:
            options += [Sequence((literal("-"), tree)) for tree in _natural(least, most)]
    return Choice(tuple(options)) if options else None


def _fraction(digits: str, below: bool) -> Node:
    """Return the tree of decimal places up to (`below`) or from those of `digits` on, which may be none."""
    if not digits:
        return EXHAUSTED if below else DIGITS
    first = int(digits[0])
    options: list[Node] = [Sequence((_digit(first, first), _fraction(digits[1:], below)))]
    if below and first > 0:
        options.append(Sequence((_digit(0, first - 1), DIGITS)))
    if not below and first < 9:
        options.append(Sequence((_digit(first + 1, 9), DIGITS)))
    if below or not digits.strip("0"):
        options.append(EMPTY)
    return Choice(tuple(options))


def _magnitude(low: Decimal, high: Decimal | None) -> Node | None:
    """Return the tree of decimal numbers from `low` >= 0 to `high`, without an exponent."""
    places = Sequence((literal("."), DIGIT, DIGITS))
    if high is not None and high < low:
        return None

    def with_point(whole: int, fraction: Node) -> Node:
        some = Sequence((literal("."), Both(fraction, Sequence((DIGIT, DIGITS)))))
        return Sequence((literal(str(whole)), some))

    bottom, top = int(low), None if high is None else int(high)
    low_digits, high_digits = (f"{x:f}".partition(".")[2].rstrip("0") if x else "" for x in (low, high or 0))
    options: list[Node] = []
    if bottom == top:
        options.append(with_point(bottom, Both(_fraction(low_digits, False), _fraction(high_digits, True))))
    else:
        options.append(with_point(bottom, _fraction(low_digits, False)))
        if top is not None:
            options.append(with_point(top, _fraction(high_digits, True)))
        if top is None or bottom + 1 <= top - 1:
            inner = Choice(tuple(_natural(bottom + 1, None if top is None else top - 1)))
            options.append(Sequence((inner, places)))
    first = bottom + (low > bottom)
    if top is None or first <= top:
        options += _natural(first, top)
    return Choice(tuple(options))


def number(low: Decimal | None = None, high: Decimal | None = None) -> Node | None:
    """Return the tree of decimal numbers from `low` to `high`, None if there are none.

    With a limit they are written without an exponent, so that it can be seen digit by digit.

    >>> from llmcourse.decode.syntax import compile_tree
    >>> numbers = compile_tree(number(Decimal("-0.5"), Decimal("1.25")))
    >>> [text for text in ("-0.51", "-0.5", "-0.0", "1.2", "1.250", "1.251") if numbers.accepts(text)]
    ['-0.5', '-0.0', '1.2', '1.250']
    """
    if low is None and high is None:
        return NUMBER
    options = []
    if high is None or high >= 0:
        options.append(_magnitude(max(low or Decimal(0), Decimal(0)), high))
    if low is None or low <= 0:
        below = _magnitude(
            max(-high if high is not None else Decimal(0), Decimal(0)), None if low is None else -low
        )
        options.append(None if below is None else Sequence((literal("-"), below)))
    options = [tree for tree in options if tree is not None]
    return Choice(tuple(options)) if options else None
