"""Long and short, of another kind: what Debian's packages are, in a line and in a text. Only where apt is."""

import re
from collections.abc import Iterator

from llmcourse.data.debian import apt_barrier, apt_descriptions
from llmcourse.data.manifest import is_offline
from llmcourse.data.sources.docstrings import BODY, SUMMARY, Docstring


def read_descriptions(lists: str) -> Iterator[Docstring]:
    """Yield (name, description, line that sums it up) of each package of a list in Debian's form.

    Of a text the paragraphs before the first list are taken, at most 120 words. Left out are lines of fewer
    than 3 words or more than 15, texts of fewer than 8, and each text that came before: a program and its
    manual have the same.

    >>> text = "Package: a\\nDescription-en: tool to draw charts\\n It draws charts of all kinds, on paper and on screens.\\n"
    >>> [pair.target for pair in read_descriptions(text)]
    ['tool to draw charts']
    """
    seen = set()
    for entry in re.split(r"\n\s*\n", lists):
        found = re.search(r"^Package: (\S+)$.*?^Description-en: (.*?)\n(.*)", entry, re.DOTALL | re.MULTILINE)
        if not found:
            continue
        name, line, text = found.groups()
        prose = re.split(r"^ \.$|^ (?=\s|[*-] )", text, maxsplit=1, flags=re.MULTILINE)[0]
        body = " ".join(prose.split()[: BODY[1]])
        fits = SUMMARY[0] <= len(line.split()) <= SUMMARY[1] and len(body.split()) >= BODY[0]
        if fits and body not in seen and (line + body).isascii():
            seen.add(body)
            yield Docstring(name, (), body, line, "debian")


def load_descriptions() -> list[Docstring]:
    """Return the descriptions of this system's packages, by apt. Raises FileNotFoundError where it cannot ask."""
    lists = None if is_offline() else apt_descriptions()
    if lists is None:
        reason = (
            "HF_HUB_OFFLINE forbids the network" if is_offline() else apt_barrier() or "apt does not answer"
        )
        raise FileNotFoundError(
            f"Debian's descriptions cannot be had ({reason}): they come with apt, on Debian, Ubuntu or Colab "
            "with a network; the docstrings are enough for the chapter"
        )
    return list(read_descriptions(lists))
