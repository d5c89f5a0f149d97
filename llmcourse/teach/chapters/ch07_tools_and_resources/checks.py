"""Exercises of chapter 7: compare versions, read a card, and tell kinds of licences apart."""

import itertools
from functools import partial

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import NotRight, exercise, require
from llmcourse.teach.forms import by_name, items, shown, truth


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".")]


def _older(installed: str, needed: str) -> bool:
    first, second = _numbers(installed), _numbers(needed)
    longest = max(len(first), len(second))
    return first + [0] * (longest - len(first)) < second + [0] * (longest - len(second))


@exercise(
    "07-older",
    "Is it too old?",
    minutes=5,
    difficulty=1,
    hints=(
        "As texts, '2.10' comes before '2.9': compare numbers. split('.') and int give them.",
        "Cut off what follows a + first: '2.13.0+cpu' is the version 2.13.0.",
        "Lists compare number by number, and a list that ends early counts as less: fill the shorter with zeros.",
    ),
    wants="function",
    form=truth,
)
def check_older(answer):
    """Versions whose order as texts, as decimals or as lists is another; slips are tried on all of them."""

    def tried(installed, needed):
        try:
            return answer(installed, needed)
        except ValueError as error:
            raise NotRight(
                f"is_older({installed!r}, {needed!r}) stops with {error}: cut off what follows a +, "
                "split at each dot, and make an int of each part"
            ) from None

    cases = {
        f"is_older({a!r}, {b!r}) is {_older(a, b)}; yours says {{value}}": (a, b)
        for a, b in (
            ("2.8", "2.9"),
            ("2.13.0", "2.9.0"),
            ("2.9", "2.9.0"),
            ("2.9.0", "2.9"),
            ("1.99.9", "2.0.0"),
            ("2.9.1", "2.9.3"),
            ("10.0", "9.5"),
            ("2.13.0+cpu", "2.13"),
            ("2.8.9+cu126", "2.9"),
            ("2.0.5", "1.9.9"),
            ("0.23.3", "0.23.10"),
            ("3", "2.9.1"),
        )
    }
    slips = {
        "you compare texts: '2.13.0' comes before '2.9.0' letter by letter; compare numbers": (
            lambda a, b: a < b,
            lambda a, b: a.split("+")[0] < b.split("+")[0],
            lambda a, b: a.split("+")[0].split(".") < b.split("+")[0].split("."),
        ),
        "2.9 and 2.9.0 are the same version, and yours calls 2.9 older: fill the shorter with zeros": (
            lambda a, b: _numbers(a) < _numbers(b)
        ),
        "equal versions are not older: use <, not <=": lambda a, b: not _older(b, a),
        "that is the other way round: is `installed` older than `needed`?": lambda a, b: _older(b, a),
        "that says whether it is NEW enough: older is the opposite": lambda a, b: not _older(a, b),
        "you look at the first two numbers only: 2.9.1 is older than 2.9.3": (
            lambda a, b: [*_numbers(a), 0][:2] < [*_numbers(b), 0][:2]
        ),
        "you look at the first number only": lambda a, b: _numbers(a)[0] < _numbers(b)[0],
        "a version is no decimal number: 2.13 is newer than 2.9": (
            lambda a, b: float(".".join(a.split("+")[0].split(".")[:2])) < float(".".join(b.split(".")[:2]))
        ),
        "one smaller number does not make it older: 2.0.5 is newer than 1.9.9. The first that differs decides": (
            lambda a, b: any(x < y for x, y in zip(_numbers(a), _numbers(b), strict=False)),
            lambda a, b: any(x < y for x, y in itertools.zip_longest(_numbers(a), _numbers(b), fillvalue=0)),
        ),
        "you join the digits to one number: 2.0.0 is newer than 1.99.9": (
            lambda a, b: int("".join(map(str, _numbers(a)))) < int("".join(map(str, _numbers(b))))
        ),
        "yours says the same of all versions": (lambda a, b: True, lambda a, b: False),
    }

    def seen(value, installed, needed):
        """Keep truth values from being compared by their ratio, as numbers are."""
        return f"is_older({installed!r}, {needed!r}) is {_older(installed, needed)}; yours says {value}"

    examine(tried, _older, cases, slips, look=seen)
    return "`packaging.version.Version` does it for every form of a version, 3.0.dev1 and 2.0rc1 too."


CARD = """# A model

Its licence, its data and its limits are below; sha256 is not.

| | |
|---|---|
| Data | 34 plays, no metrics |
| Licence | |
| Limits of use | English only |
| {extra} |
"""


def _rows(card: str, kept=lambda value: value, name=lambda text: text.strip().lower()) -> list[str]:
    lines = [[cell.strip() for cell in line.split("|")] for line in card.splitlines()]
    return [name(cells[1]) for cells in lines if len(cells) >= 4 and kept(cells[2])]


def _missing(card: str, needed: list[str]) -> list[str]:
    said = _rows(card)
    return [name for name in needed if name.lower() not in said]


@exercise(
    "07-card",
    "What does the card not say?",
    minutes=8,
    difficulty=2,
    hints=(
        "card.splitlines() gives the lines; a row of the table, split at '|', has the name at place 1, the value at 2.",
        "strip() both; a row without a value states nothing.",
        "Compare in small letters, name with name: a word in the text, or in a value, is no row.",
    ),
    wants="function",
    form=partial(items, what="names"),
    keeps="the list of needed names",
)
def check_card(answer):
    """Cards with a row that is empty, a word that stands elsewhere, other letters, and names within names."""
    cards = [CARD.replace("{extra}", extra) for extra in ("Test | 3.61 nats", "TEST | 89 %", "test | ")]
    wanted = [["data", "test"], ["Data", "Licence", "Test"], ["sha256", "limits", "metrics", "Data"]]
    asked = [(cards[0], wanted[0]), (cards[0], wanted[1]), (cards[1], wanted[2]), (cards[2], wanted[1])]
    asked += [(cards[1], []), ("no table at all", ["Data", "Test"]), (cards[0], ["Test", "weights", "data"])]
    notes = (
        "every name of this card is stated, in other letters",
        "a row without a value states nothing",
        "a name in the text, in a value or within a longer name is no row",
        "two rows without a value",
        "nothing is needed",
        "a text without a table states nothing",
        "names come in the order of `needed`",
    )
    cases = {
        f"{note}: for {names} it is {{right}}; you return {{value}}": (card, list(names))
        for note, (card, names) in zip(notes, asked, strict=True)
    }

    def tried(card, needed):
        given = list(needed)
        result = answer(card, given)
        require(given == list(needed), "your function changes the list `needed`: return a new one")
        wrong = [name for name in result if not isinstance(name, str)]
        require(not wrong, f"return names, which are texts; {shown(wrong and wrong[0])} is none")
        return [str(name) for name in result]

    def lacking(said):
        return lambda card, needed: [name for name in needed if name.lower() not in said(card)]

    def cased(card, needed):
        return [name for name in needed if name not in _rows(card, name=str.strip)]

    slips = {
        "you return what the card HAS: return what it lacks": (
            lambda card, needed: [name for name in needed if name.lower() in _rows(card)]
        ),
        "you search the whole text: a word in a sentence or a value is no row of the table": (
            lacking(str.lower),
            lambda card, needed: [name for name in needed if name not in card],
        ),
        "a row without a value counts for you: 'Licence' stands there, and states nothing": (
            lacking(lambda card: _rows(card, kept=lambda value: True))
        ),
        "'Data' and 'data' are the same name: compare in small letters": (
            cased,
            lambda card, needed: [name.lower() for name in needed if name not in _rows(card, name=str.strip)],
        ),
        "a name within a longer name is another row: 'limits' is not 'Limits of use'": (
            lambda card, needed: [name for name in needed if not any(name.lower() in x for x in _rows(card))],
            lambda card, needed: [n for n in needed if not any(x.startswith(n.lower()) for x in _rows(card))],
        ),
        "return the names as they stand in `needed`, in its letters": (
            lambda card, needed: [name.lower() for name in _missing(card, needed)],
        ),
        "return the names in the order of `needed`, do not sort them": (
            lambda card, needed: sorted(_missing(card, needed)),
        ),
        "you look at values, not at names: the name stands before the value": (
            lambda card, needed: [
                name
                for name in needed
                if name.lower()
                not in [
                    line.split("|")[2].strip().lower() for line in card.splitlines() if line.count("|") > 2
                ]
            ]
        ),
    }
    examine(tried, _missing, cases, slips)
    return "`llmcourse.data.cards` also reads front matter and headings, and knows placeholders."


KINDS = ("permissive", "copyleft", "rules of use", "threshold", "none")
TRUTH = dict(
    zip("ABCDEF", ("permissive", "copyleft", "rules of use", "none", "threshold", "copyleft"), strict=True)
)
WHY = {
    "A": "A lets you do anything, also sell, and asks for its notice alone",
    "B": "B asks that what is changed and passed on keeps these same terms",
    "C": "C forbids uses by name, and asks you to hand the list on",
    "D": "in D nobody has allowed anything: what can be downloaded is not free for that",
    "E": "E changes with the number of your users",
    "F": "F is a text under the licence of Wikipedia: share alike",
}  # fmt: skip


@exercise(
    "07-licence",
    "Which kind of licence is it?",
    minutes=4,
    difficulty=1,
    hints=(
        "Ask three things of each: may I sell, what must I hand on with it, and is there a list or a number in it?",
        "Copyleft binds what you make of it; rules of use bind what you and others do with it.",
        "Without a licence the author keeps all rights.",
    ),
    wants="value",
    form=partial(by_name, names=tuple(TRUTH), example="permissive"),
)
def check_licence(answer):
    """Each letter by itself; what is right is said too."""
    given = {letter: _kind(answer.get(letter)) for letter in TRUTH}
    missing = [letter for letter in TRUTH if answer.get(letter) in (None, ..., "")]
    require(not missing, f"name a kind for {', '.join(missing)} too")
    unknown = [f"{letter}: {shown(answer[letter])}" for letter in TRUTH if given[letter] is None]
    require(not unknown, f"{'; '.join(unknown)} is no kind of the list: {', '.join(KINDS)}")
    wrong = [
        f"{WHY[letter]}: it is not {given[letter]!r}" for letter in TRUTH if given[letter] != TRUTH[letter]
    ]
    right = [letter for letter in TRUTH if given[letter] == TRUTH[letter]]
    praise = f"right: {', '.join(right)}. " if right else ""
    require(not wrong, praise + ". ".join(wrong))
    return "which of them binds you is decided by what you hand on, so ask before you build on it."


def _kind(value) -> str | None:
    """Return the kind that a text names, however it is written; None for another."""
    if value is None or value is ...:
        return None
    words = " ".join(str(value).lower().replace("-", " ").replace("_", " ").split())
    names = {"rules": "rules of use", "use rules": "rules of use", "no licence": "none", "no license": "none"}
    names |= {"nothing": "none", "copy left": "copyleft", "share alike": "copyleft"}
    words = names.get(words, words)
    return words if words in KINDS else None
