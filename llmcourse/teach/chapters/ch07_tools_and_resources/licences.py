"""Licences of models and data, as far as a user must know them: facts with the text and the date they were read from.

Not legal advice: a table for finding out what to read.
"""

from importlib import metadata
from typing import NamedTuple


class Licence(NamedTuple):
    """What a licence allows and asks; `source` names the text, with its date or version."""

    name: str
    kind: str  # "permissive", "copyleft", "non-commercial", "rules of use", "threshold" or "none"
    sell: bool
    pass_on: bool
    keep_notice: bool
    same_terms: bool
    rules_of_use: bool
    threshold: bool
    source: str


LICENCES = (
    Licence("MIT, BSD", "permissive", True, True, True, False, False, False, "OSI's texts"),
    Licence("Apache-2.0", "permissive", True, True, True, False, False, False, "version 2.0, January 2004, section 4"),
    Licence("GPL-3.0", "copyleft", True, True, True, True, False, False, "version 3, June 2007, section 5"),
    Licence("CC BY-SA 4.0", "copyleft", True, True, True, True, False, False, "version 4.0, section 3(b)"),
    Licence("CC BY-NC 4.0", "non-commercial", False, True, True, False, False, False, "version 4.0, section 2(a)"),
    Licence("OpenRAIL-M", "rules of use", True, True, True, False, True, False, "BigScience, 18 August 2022"),
    Licence("Gemma terms", "rules of use", True, True, True, False, True, False, "modified 1 April 2026; not Gemma 4"),
    Licence("Llama 3", "threshold", True, True, True, False, True, True, "18 April 2024, section 1; section 2: 700 million users a month"),
    Licence("no licence", "none", False, False, False, False, False, False, "copyright as the law has it"),
)  # fmt: skip


def stated_licence(package: str) -> tuple[str, str, bool]:
    """Return how an installed package states its licence: the words, where they stand, and if a text is with it.

    The places are looked at from the clearest to the vaguest: an SPDX expression, a field of free text, a
    classifier. The words are ("-", "nowhere") where none says anything.

    >>> stated_licence("numpy")[1]
    'expression'
    """
    about = metadata.metadata(package)
    names = [path.name.upper() for path in metadata.files(package) or []]
    has_text = any(name.startswith(("LICENSE", "LICENCE", "COPYING")) for name in names)
    classifiers = [
        c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if c.startswith("License")
    ]
    places = {
        "expression": about.get("License-Expression"),
        "free text": about.get("License"),
        "classifier": "; ".join(classifiers),
    }
    where = next((place for place, words in places.items() if words), "nowhere")
    words = (places.get(where) or "-").strip().splitlines()[0]
    return words, where, has_text
