"""Dates and numbers in English, French, German and Chinese: pairs without end, right by definition.

The Unicode Common Locale Data Repository (CLDR) says how each language writes them, and babel holds it:
babel 2.19 holds CLDR 49. Nothing is downloaded.
"""

import random
from datetime import date, timedelta

from babel.core import get_global
from babel.dates import format_date
from babel.numbers import format_decimal

from llmcourse.data.parallel import Pair
from llmcourse.support.inputs import whole

LANGUAGES = ("en", "fr", "de", "zh")
FIRST_DAY, DAYS = date(1900, 1, 1), 73_049  # up to the last day of 2099
STYLES = ("full", "long", "medium")  # "short" leaves out the century


def cldr_version() -> str:
    """Return the version of CLDR that the installed babel holds, such as "49"; "" where it does not say."""
    try:
        return str(get_global("cldr").get("version", ""))
    except KeyError:  # babel before 2.17
        return ""


def write_date(day: date, language: str, style: str = "full") -> str:
    """Return a date as `language` writes it: "full" with the day of the week, "long", or "medium".

    >>> write_date(date(2026, 5, 1), "fr"), write_date(date(2026, 5, 1), "de", "medium")
    ('vendredi 1 mai 2026', '01.05.2026')

    Raises ValueError for another language or style.
    """
    _check(language)
    if style not in STYLES:
        raise ValueError(f"style={style!r} is unknown: choose one of {STYLES}")
    return format_date(day, style, locale=language)


def write_number(value: float, language: str) -> str:
    """Return a number with the language's signs for thousands and decimals.

    French groups by U+202F, a narrow space at which no line breaks.

    >>> write_number(1234567.5, "de"), write_number(1234567.5, "fr")
    ('1.234.567,5', '1\\u202f234\\u202f567,5')

    Raises ValueError for another language.
    """
    _check(language)
    return format_decimal(value, locale=language)


def _check(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is unknown: choose one of {LANGUAGES}")


def _new_number(rng: random.Random, seen: set[float]) -> float:
    """Return a number of four to seven digits that is not in `seen`, and add it; half have two decimals."""
    while True:
        value = rng.randrange(1000, 10 ** rng.randint(4, 7)) / rng.choice((1, 100))
        if value not in seen:
            seen.add(value)
            return value


def locale_pairs(
    n: int, seed: int = 0, share_of_numbers: float = 0.25, styles=("long", "medium")
) -> list[Pair]:
    """Return n pairs between two of the four languages, no two about the same date or number.

    So a list may be cut anywhere, and what is behind the cut was not seen before it. `origin` is "date"
    or "number". `styles` are those of the sources: a date in the style "full", with the day of the week,
    is translated as "full", any other as "long", so a source decides its target. Numbers have at most two
    decimals and three digits in a group: "1,234" is English and above a thousand, "1,23" is not. Raises
    ValueError for more pairs than there are dates, and for an unknown style.

    >>> pairs = locale_pairs(4, seed=1)
    >>> pairs == locale_pairs(4, seed=1), len({pair.source for pair in pairs})
    (True, 4)
    """
    n, rng = whole(n, "n"), random.Random(seed)
    if n > DAYS:
        raise ValueError(f"n={n} is more than the {DAYS} dates from 1900 to 2099: ask for fewer")
    pairs, seen = [], set()
    for day in rng.sample(range(DAYS), n):
        a, b = rng.sample(LANGUAGES, 2)
        if rng.random() < share_of_numbers:
            value = _new_number(rng, seen)
            pairs.append(Pair(write_number(value, a), write_number(value, b), b, "number"))
        else:
            style, when = rng.choice(styles), FIRST_DAY + timedelta(day)
            target = write_date(when, b, "full" if style == "full" else "long")
            pairs.append(Pair(write_date(when, a, style), target, b, "date"))
    return pairs
