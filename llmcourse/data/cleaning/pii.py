"""Personal data that has a form: found by a pattern, then checked, so that what only looks alike is kept."""

import socket
from dataclasses import dataclass

import regex


@dataclass(frozen=True)
class Span:
    """Personal data found in a text: its kind and its place, text[start:end]."""

    kind: str
    start: int
    end: int


def luhn_valid(number: str) -> bool:
    """Return whether the digits of a card number pass their check sum.

    Source: ISO/IEC 7812-1, annex B.

    >>> luhn_valid("4111 1111 1111 1111"), luhn_valid("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(char) for char in number if char.isdecimal()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(digits) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_book(number: str) -> bool:  # ISO 2108, annex A
    digits = [10 if char in "xX" else int(char) for char in number if char not in "- "]
    if len(digits) == 10:
        return sum(i * digit for i, digit in enumerate(digits[::-1], 1)) % 11 == 0
    return len(digits) == 13 and (sum(digits) + 2 * sum(digits[1::2])) % 10 == 0


def _is_address(value: str) -> bool:
    value = value.split("%")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6, value)
    except OSError:
        return False
    groups = value.split(":")
    allotted = 0x20 <= packed[0] < 0x40 or packed[0] >= 0xFC  # RFC 4291, section 2.4
    names = "" in groups and not any(group[:1].isdigit() for group in groups)  # ab::cd, as in C++
    return allotted or "." in value or value == "::1" or (4 in map(len, groups) and not names)


def _is_phone(value: str) -> bool:
    return 8 <= sum(map(str.isdecimal, value.split("x")[0])) <= 15


# A border is where ASCII ends: in 来自192.0.2.7的, letters of another script stand next to a number.
LEFT, RIGHT = r"(?<![A-Za-z\d])(?<![A-Za-z\d][.-])", r"(?![A-Za-z\d])(?!-[A-Za-z\d])"
NOT_AFTER = r"(?<!(?i:ISBN|ISSN|version|release|section|v|§|版本号?|第)(?:-1[03])?[.:]? ?)"

# Each part of an e-mail address stays in one script. It is looked for from its @ to both sides.
LATIN, OTHER = r"[\p{Latin}\u0300-\u036f\p{Nd}_-]", r"(?:(?!\p{Latin})[\p{L}\p{M}\p{Nd}_-])"
LOCAL = "|".join(rf"(?![_-]){letter}(?:{letter}|[.+])*" for letter in (LATIN, OTHER))
LABELS = rf"(?:(?:{LATIN}++|{OTHER}++)\.)+"
EMAIL = rf"@(?<=(?P<start>{LOCAL})@)" + (
    rf"(?:{LABELS}[A-Za-z]{{2,63}}(?![A-Za-z0-9])|(?:{OTHER}++\.)+(?=\p{{L}}){OTHER}{{2,63}})"
)

BYTE, HEX = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)", "[0-9A-Fa-f]"
V4 = rf"(?:{BYTE}\.){{3}}{BYTE}(?!\.\d)(?![A-Za-z\d])"
V6 = (  # from its first colon to both sides; `_is_address` counts the groups
    rf":(?<=(?<![A-Za-z0-9]|(?<![A-Za-z0-9]){HEX}{{1,4}}:|::|[\w)\]]\[(?=::1\]))(?P<start>{HEX}{{0,4}}):)"
    rf"(?:{HEX}{{0,4}}:){{1,7}}(?:{V4}|{HEX}{{0,4}}(?<![^:]:)(?!:[A-Za-z0-9:]))(?:%[A-Za-z0-9]+)?(?![A-Za-z0-9])"
)

ISBN = r"(?:97[89](?:[- ]?\d){10}|\d{1,5}([- ])\d{1,7}\1\d{1,7}\1[\dX](?!\1\d))"
DAY, YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"[0-2]\d{3}"  # DAY: or a month
DATE = (
    rf"(?:{DAY}(?P<s>[./-]) ?{DAY}(?P=s) ?(?:{YEAR}|\d\d(?! \d{{3}}))"
    rf"|{YEAR}(?P<t>[./-]) ?{DAY}(?P=t) ?{DAY}|{DAY}[./]{YEAR}|(?<![\d)] ){DAY} {DAY} {YEAR}(?! ?\d)"
    r"|(?:1\d|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])(?:[0-5]\d){1,2})"  # 20030201235959
)
DATES = (
    rf"(?=\d)(?<!\d|\d[./]|\d-(?=\d+-))(?:{DAY}\.(?:{DAY}\.)? ?- ?)?{DATE}(?: ?- ?{DATE})*"
    r"(?!\d|[./]\d|-\d+[.-]\d)"
)

DIALLED = (  # how a telephone number begins
    r"(?=\+(?!0)|\(\d\d|0(?!\.|[ -]\d[ -])|(?:1[-. ])?\d{3}[-. ]\d{3}[-. ]\d{4}"
    r"|\d{10}(?![ ().-]*\d)|1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d))"
)
THOUSANDS = r"(?<![)+/.-] ?|\d ?)[1-9]\d{0,2}(?: \d{3}){2,}(?! ?\d)"
COLOUR = r"(?<=#)\d{8}(?!\d)"
PHONE = rf"{DIALLED}(?!{COLOUR})(?:\+?\(\d{{1,5}}\)|0\d{{2,5}} ?/|\+?\d)[\d ().-]{{5,18}}\d(?:x\d{{1,5}})?"

FORMS = [  # in this order: what an earlier one has taken is not looked at again
    ("EMAIL", EMAIL, None),
    ("IP", V6, _is_address),
    ("IP", rf"(?=\d)(?<![A-Za-z\d]|[A-Za-z\d]\.){NOT_AFTER}{V4}", None),
    ("", LEFT + ISBN + RIGHT, _is_book),  # books, dates and amounts are no one's
    ("", DATES, None),
    ("", LEFT + THOUSANDS + RIGHT, None),
    ("CARD", rf"{LEFT}(?<!\+[\d -]{{0,5}}){NOT_AFTER}\d{{4}}(?:[ -]?\d){{8,15}}{RIGHT}", luhn_valid),
    ("PHONE", LEFT + NOT_AFTER + PHONE + RIGHT, _is_phone),
]
FORMS = [(kind, regex.compile(pattern), check) for kind, pattern, check in FORMS]

ASCII = {0xFF01 + i: chr(0x21 + i) for i in range(94)}  # full-width forms, then dashes and blanks
ASCII |= dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
ASCII |= dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " ")


def find_pii(text: str) -> list[Span]:
    """Return e-mail addresses, card numbers, IP addresses and telephone numbers, by place.

    Numbers are told apart by their form: 12-19 digits with a valid check sum are a card; 8-15 digits
    that begin with +, 0 or an area code in brackets, come as 3-3-4, or are a Chinese mobile number,
    are a telephone, unless they are a date, an amount in groups of three or the number of a book. A
    group with "::" that C++ could hold, such as ab::cd, is no address. Each character belongs to one
    find at most, and the time grows with the length, whatever the text. Names and street addresses
    need a model that reads
    (say, spaCy or Presidio).
    """
    rest, spans = list(text.translate(ASCII)), []
    for kind, pattern, check in FORMS:
        read, at = "".join(rest), 0
        while match := pattern.search(read, at):
            start, end = match.start("start" if "start" in pattern.groupindex else 0), match.end()
            if start >= at and (check is None or check(read[start:end])):
                at = end
                rest[start:end] = "\0" * (end - start)
                spans += [Span(kind, start, end)] if kind else []
            else:
                at = match.start() + 1
    return sorted(spans, key=lambda span: span.start)


def mask_pii(text: str) -> str:
    """Return a text with each find of `find_pii` replaced by its kind.

    >>> mask_pii("Write to ann@example.org or call +1 555 010 9999, but not on 04.07.2003.")
    'Write to [EMAIL] or call [PHONE], but not on 04.07.2003.'
    """
    parts, at = [], 0
    for span in find_pii(text):
        parts += [text[at : span.start], f"[{span.kind}]"]
        at = span.end
    return "".join(parts) + text[at:]
