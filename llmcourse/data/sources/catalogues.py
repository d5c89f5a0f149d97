"""Translations that people made: interface strings in gettext catalogues, English to French and Chinese.

A catalogue (`.po`, or compiled `.mo`) holds one program's strings and their translations. babel reads
both; what counts as a translation is decided here, as gettext means it.
"""

import gettext
import io
import re
from collections import Counter
from collections.abc import Iterator

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from llmcourse.data.manifest import Files, fetch
from llmcourse.data.parallel import Pair
from llmcourse.data.placeholders import mask

LANGUAGES = {"fr": ("fr", "fr_FR"), "zh": ("zh_Hans", "zh_CN")}  # the folders that gettext looks in
PROGRAMS = {
    "jupyterlab": ("catalogues-jupyterlab-{}",),
    "horizon": ("catalogues-horizon",),
    "sahara": ("catalogues-sahara",),
    "wagtail": ("catalogues-wagtail",),
    "spyder": ("catalogues-spyder",),
    "allauth": ("catalogues-allauth",),
}
MOST_WORDS = 40


def entries(content: bytes, name: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (English, translation, fuzzy) of each text in a catalogue; an untranslated one has "".

    The header, which has the empty text as its English, is no entry, and neither is what is commented
    out as obsolete. An entry with a plural gives two: the singular with the form for n = 1, the plural
    with the form for n = 2, as the catalogue's own formula numbers them (Chinese has one form for both).
    A text may come several times, in several contexts. Raises ValueError for what is no catalogue.

    Source: the GNU gettext manual, sections *PO Files*, *Plural forms* and *MO Files*.
    """
    try:
        catalogue = (read_mo if name.endswith(".mo") else read_po)(io.BytesIO(content))
        form = gettext.c2py(catalogue.plural_expr)
    except Exception as error:
        raise ValueError(f"{name} is no gettext catalogue that babel can read: {error}") from error
    for message in catalogue:
        if not message.id:
            continue
        english = (message.id,) if isinstance(message.id, str) else message.id
        forms = (message.string,) if isinstance(message.string, str) else message.string
        for n, text in enumerate(english, 1):
            k = form(n) if len(english) > 1 else 0
            yield text, (forms[k] or "") if k < len(forms) else "", message.fuzzy


def clean(source: str, target: str, language: str) -> tuple[str, str] | str:
    """Return the pair as it is learnt from, or one word that says why it is left out.

    White space of any kind becomes one space, the mark of an access key (`&File`, Chinese `文件(&F)`)
    goes, and curly apostrophes and the sign for three dots are written plainly. Left out is what is
    empty, equal on both sides, without a letter, longer than 40 words (or 120 characters of Chinese),
    "Chinese" without a Chinese character, and what has other placeholders or tags than the source.

    >>> clean("&Delete %(n)d  files", "删除 %(n)d 个文件(&D)", "zh")
    ('Delete %(n)d files', '删除 %(n)d 个文件')
    >>> clean("Delete %s", "Supprimer", "fr")
    'placeholders'
    """
    source, target = _plain(source), _plain(target)
    if not source or not target:
        return "empty"
    if source == target:
        return "equal"
    if not re.search(r"[A-Za-z]{2}", source):
        return "no letters"
    if len(source.split()) > MOST_WORDS or len(target) > (120 if language == "zh" else 400):
        return "long"
    if language == "zh" and not re.search(r"[\u4e00-\u9fff]", target):
        return "no Chinese"
    try:
        masked, known = mask(source)
        other, same = mask(target, known)
    except ValueError:
        return "placeholders"
    if len(same) > len(known) or sorted(_marks(masked)) != sorted(_marks(other)):
        return "placeholders"
    return (source, target) if re.search(r"[A-Za-z]{2}", masked) else "no letters"


def _plain(text: str) -> str:
    text = re.sub(r"\s?\(&\w\)", "", " ".join(text.split()))
    text = re.sub(r"&(?=\w)(?!\w+;)", "", text)
    return text.replace("’", "'").replace("…", "...").strip()


def _marks(masked: str) -> list[str]:
    return [sign for sign in masked if "\ue000" <= sign <= "\uf8ff"]


def stand_in_catalogue() -> Files:
    """Return names of countries, languages and currencies from CLDR, which babel holds, as catalogues."""
    english, files = Locale("en"), {}
    for folder, *_ in LANGUAGES.values():
        locale, catalogue = Locale.parse(folder), Catalog(locale=folder)
        for table in ("territories", "languages", "currencies"):
            known = getattr(locale, table)
            for code, name in sorted(getattr(english, table).items()):
                if code in known:
                    catalogue.add(name, known[code])
        buffer = io.BytesIO()
        write_mo(buffer, catalogue)
        files[f"generated/locale/{folder}/LC_MESSAGES/names.mo"] = buffer.getvalue()
    return files


def load_catalogues(
    language: str, programs=tuple(PROGRAMS), quiet: bool = False
) -> tuple[list[Pair], Counter]:
    """Return (pairs, counts): one translation of each English text, and how many were left out and why.

    Where people gave a text several translations, the most frequent is kept, the first among equals.
    Counts have "pairs" (kept) and a row for each reason: "fuzzy" (an entry that its translator has
    not yet looked at: msgfmt leaves it out of the .mo as well), "again" (the same text once more) and
    those of `clean`. Without the packages, names from CLDR stand in. Raises ValueError for a language
    or a program that there is none of.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is unknown: choose one of {sorted(LANGUAGES)}")
    if unknown := [program for program in programs if program not in PROGRAMS]:
        raise ValueError(f"no catalogues are called {unknown}: choose from {sorted(PROGRAMS)}")
    counts, found = Counter(), {}
    for program in programs:
        for name in PROGRAMS[program]:
            files = fetch(name.format(language), generate=stand_in_catalogue, quiet=quiet).files
            for path in sorted(files):
                if path.split("/")[-3] not in LANGUAGES[language]:
                    continue
                for source, target, fuzzy in entries(files[path], path):
                    pair = "fuzzy" if fuzzy else clean(source, target, language)
                    if isinstance(pair, str):
                        counts[pair] += 1
                    else:
                        found.setdefault(pair[0], []).append((pair[1], program))
    pairs = []
    for source, targets in found.items():
        (target, _), *_ = Counter(text for text, _ in targets).most_common(1)
        program = next(program for text, program in targets if text == target)
        pairs.append(Pair(source, target, language, program))
        counts["again"] += len(targets) - 1
    counts["pairs"] = len(pairs)
    return pairs, counts
