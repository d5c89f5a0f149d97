"""Catalogues as gettext means them: against Python's own gettext, and small files made here."""

import gettext
import io

import pytest
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from llmcourse.data import manifest
from llmcourse.data.sources import catalogues
from llmcourse.data.sources.catalogues import clean, entries, load_catalogues

PO = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\n"
"Plural-Forms: nplurals={n}; plural={formula};\n"
"Language: {language}\n"

#, fuzzy
msgid "Open"
msgstr "Ouvre"

msgctxt "menu"
msgid "File"
msgstr "Fichier"

msgctxt "verb"
msgid "File"
msgstr "Classer"

msgid "Nothing"
msgstr ""

#, python-format
msgid "%d file"
msgid_plural "%d files"
{forms}

#~ msgid "Old"
#~ msgstr "Vieux"
"""
FRENCH_3 = "(n == 0 || n == 1) ? 0 : n != 0 && n % 1000000 == 0 ? 1 : 2"


def po(formula="n > 1", n=2, language="fr", forms=("%d fichier", "%d fichiers")):
    lines = "\n".join(f'msgstr[{i}] "{form}"' for i, form in enumerate(forms))
    return PO.format(n=n, formula=formula, language=language, forms=lines).encode()


def mo(content: bytes) -> bytes:
    buffer = io.BytesIO()
    write_mo(buffer, read_po(io.BytesIO(content)))
    return buffer.getvalue()


def test_what_a_po_file_holds():
    assert list(entries(po(), "a.po")) == [
        ("Open", "Ouvre", True),
        ("File", "Fichier", False),
        ("File", "Classer", False),
        ("Nothing", "", False),
        ("%d file", "%d fichier", False),
        ("%d files", "%d fichiers", False),
    ]


def test_a_compiled_one_has_neither_fuzzy_nor_untranslated_entries():
    expected = [entry for entry in entries(po(), "a.po") if entry[1] and not entry[2]]
    assert sorted(entries(mo(po()), "a.mo")) == sorted(expected)


@pytest.mark.parametrize(
    ("formula", "n", "language", "forms"),
    [
        ("n > 1", 2, "fr", ("%d fichier", "%d fichiers")),
        (FRENCH_3, 3, "fr", ("%d fichier", "%d de fichiers", "%d fichiers")),
        ("0", 1, "zh_CN", ("%d 个文件",)),
        ("n == 1 ? 1 : 0", 2, "fr", ("%d fichiers", "%d fichier")),  # any order that the formula says
    ],
)
def test_plural_forms_are_those_that_gettext_chooses(formula, n, language, forms):
    content = po(formula, n, language, forms)
    library = gettext.GNUTranslations(io.BytesIO(mo(content)))
    chosen = [library.ngettext("%d file", "%d files", k) for k in (1, 2)]
    for name, data in (("a.po", content), ("a.mo", mo(content))):
        found = {source: target for source, target, _ in entries(data, name)}
        assert [found["%d file"], found["%d files"]] == chosen


@pytest.mark.parametrize("name", ["a.mo", "a.po"])
def test_what_is_no_catalogue_is_named(name):
    with pytest.raises(ValueError, match=rf"{name} is no gettext catalogue"):
        list(entries(b"\xff\xfe\x00 no catalogue", name))


@pytest.mark.parametrize(
    ("source", "target", "language", "expected"),
    [
        ("Save\n  as", "Enregistrer\u202f: \xa0sous", "fr", ("Save as", "Enregistrer : sous")),
        ("&Save", "保存(&S)", "zh", ("Save", "保存")),
        ("Save &as", "Enregistrer &sous", "fr", ("Save as", "Enregistrer sous")),
        ("Cut &amp; paste", "Couper &amp; coller", "fr", ("Cut &amp; paste", "Couper &amp; coller")),
        ("R&D wins", "La R & D gagne", "fr", ("RD wins", "La R & D gagne")),
        ("It’s…", "C’est…", "fr", ("It's...", "C'est...")),
        ("%(n)d of {m} <b>files</b>", "{m} 个<b>文件</b> %(n)d", "zh", None),
        ("Delete {n} of {n}", "Supprimer {n}", "fr", "placeholders"),
        ("Delete", "Supprimer {n}", "fr", "placeholders"),
        ("Delete {n}", "Supprimer {m}", "fr", "placeholders"),
        ("100% sure", "sûr à 100 %", "fr", ("100% sure", "sûr à 100 %")),
        ("OK", "OK", "fr", "equal"),
        ("Yes", "", "fr", "empty"),
        ("Open", "Open it", "zh", "no Chinese"),
        ("%s: %d", "%d : %s", "fr", "no letters"),
        ("word " * 41, "mot", "fr", "long"),
    ],
)
def test_cleaning(source, target, language, expected):
    expected = (source, target) if expected is None else expected
    assert clean(source, target, language) == expected


def hide_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)


@pytest.mark.parametrize("language", ["fr", "zh"])
def test_without_the_packages_names_of_cldr_stand_in(language, monkeypatch, tmp_path, capsys):
    hide_packages(monkeypatch, tmp_path)
    pairs, counts = load_catalogues(language)
    assert len(pairs) == counts["pairs"] > 700
    found = {pair.source: pair.target for pair in pairs}
    assert found["Germany"] == {"fr": "Allemagne", "zh": "德国"}[language]
    assert "STAND-IN" in capsys.readouterr().out


def test_a_text_stands_once_with_its_most_frequent_translation(monkeypatch):
    def one(k, target):
        name = f"app{k}/locale/fr/LC_MESSAGES/a.po"
        return name, f'msgid ""\nmsgstr "Language: fr\\n"\n\nmsgid "Run"\nmsgstr "{target}"\n'.encode()

    files = dict([one(1, "Courir"), one(2, "Exécuter"), one(3, "Exécuter")])
    files["app4/locale/zh_Hant/LC_MESSAGES/a.po"] = b"not read"
    data = manifest.DataSet("x", "package", "", files)
    monkeypatch.setattr(catalogues, "fetch", lambda *a, **k: data)
    pairs, counts = load_catalogues("fr", programs=["spyder"])
    assert [(p.source, p.target, p.language, p.origin) for p in pairs] == [
        ("Run", "Exécuter", "fr", "spyder")
    ]
    assert counts == {"pairs": 1, "again": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("de",), "language='de' is unknown"), (("fr", ["vim"]), r"no catalogues are called \['vim'\]")],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_catalogues(*arguments)
