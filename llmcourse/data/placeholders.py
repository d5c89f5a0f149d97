"""Placeholders and tags in a text become single signs, which a model can copy, and come back afterwards.

`%(name)s`, `{count}`, `<b>` and `&nbsp;` are code: a program breaks when a letter of them changes. The
signs come from Unicode's private area, from U+E000 on, which no ordinary text contains.
"""

import re

FIRST, MOST = 0xE000, 12
PLACEHOLDER = re.compile(
    r"%\(\w+\)[#0+-]?\d*(?:\.\d+)?[a-zA-Z]"  # %(name)s
    r"|%(?:\d+\$)?(?:\.\d+)?[sdifgr](?![A-Za-z])"  # %s, %.2f, %1$s
    r"|%\d+|%%"  # %1, as in Qt and JupyterLab
    r"|\{\{[^{}]{0,80}\}\}|\{[^{}]{0,80}\}"  # {name}, {{ name }}, {$ name $}
    r"|</?[A-Za-z][^<>]{0,200}>"  # <b>, </b>, <a href="...">
    r"|&\w{2,8};|&#\d+;"  # &nbsp;
    r"|https?://[^\s<>()]+[^\s<>().,;:!?]"
)


def mask(text: str, known: list[str] | None = None) -> tuple[str, list[str]]:
    """Return (text with signs, what they stand for), in the order of their first place.

    `known` are placeholders that have signs already, as those of the source have for its
    translation; equal ones share a sign. Raises ValueError for more than 12 of them, and for a text
    that holds such a sign itself.

    >>> masked, known = mask("Delete {n} of {n} files <b>now</b>?")
    >>> masked == "Delete \\ue000 of \\ue000 files \\ue001now\\ue002?", known
    (True, ['{n}', '<b>', '</b>'])
    """
    known = list(known or [])
    if place := re.search("[\ue000-\uf8ff]", text):
        raise ValueError(
            f"the text holds U+{ord(place.group()):04X} of Unicode's private area, with which placeholders "
            "are marked here: take it out"
        )

    def sign(match: re.Match) -> str:
        if match.group() not in known:
            known.append(match.group())
        return chr(FIRST + known.index(match.group()))

    masked = PLACEHOLDER.sub(sign, text)
    if len(known) > MOST:
        raise ValueError(f"the text has {len(known)} different placeholders; at most {MOST} have a sign")
    return masked, known


def unmask(text: str, known: list[str]) -> str:
    """Return `text` with each sign replaced by what it stands for; a sign without a meaning goes.

    >>> unmask("Supprimer \\ue000 fichiers\\ue005", ["{n}"])
    'Supprimer {n} fichiers'
    """

    def meaning(match: re.Match) -> str:
        place = ord(match.group()) - FIRST
        return known[place] if place < len(known) else ""

    return re.sub("[\ue000-\uf8ff]", meaning, text)
