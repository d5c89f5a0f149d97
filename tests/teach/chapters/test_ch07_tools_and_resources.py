"""Exercises of `07_tools_and_resources`: right answers in several forms, wrong ones that learners give; and its helpers."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_right, assert_wrong
from packaging.version import Version

from llmcourse.model import GPT, ModelConfig
from llmcourse.teach.chapters.ch07_tools_and_resources import checks
from llmcourse.teach.chapters.ch07_tools_and_resources.hub import publish
from llmcourse.teach.chapters.ch07_tools_and_resources.licences import LICENCES, stated_licence
from llmcourse.teach.chapters.ch07_tools_and_resources.preferences import dpo_loss, log_probability

RIGHT, WRONG = {}, {}


# ---- 07-older --------------------------------------------------------------------------------


def numbers(version):
    return [int(part) for part in version.split("+")[0].split(".")]


def by_place(installed, needed):
    first, second = numbers(installed), numbers(needed)
    for i in range(max(len(first), len(second))):
        a = first[i] if i < len(first) else 0
        b = second[i] if i < len(second) else 0
        if a != b:
            return a < b
    return False


def padded(version):
    return tuple(int(x) for x in (re.split(r"\+", version)[0] + ".0.0.0").split(".")[:4])


RIGHT["07-older"] = [
    by_place,
    lambda a, b: Version(a.split("+")[0]) < Version(b),
    lambda a, b: padded(a) < padded(b),
    lambda a, b: np.bool_(padded(a) < padded(b)),
    lambda a, b: torch.tensor(padded(a) < padded(b)),
    lambda installed, needed: not padded(installed) >= padded(needed),
]
WRONG["07-older"] = {
    "texts": ("you compare texts", lambda a, b: a < b),
    "lists of texts": ("you compare texts", lambda a, b: a.split("+")[0].split(".") < b.split(".")),
    "no zeros": ("fill the shorter with zeros", lambda a, b: numbers(a) < numbers(b)),
    "or equal": ("equal versions are not older", lambda a, b: padded(a) <= padded(b)),
    "turned round": ("the other way round", lambda a, b: padded(b) < padded(a)),
    "new enough": ("older is the opposite", lambda a, b: padded(a) >= padded(b)),
    "two numbers": ("the first two numbers only", lambda a, b: padded(a)[:2] < padded(b)[:2]),
    "one number": ("the first number only", lambda a, b: padded(a)[0] < padded(b)[0]),
    "decimals": (
        "no decimal number",
        lambda a, b: float(".".join(map(str, padded(a)[:2]))) < float(".".join(map(str, padded(b)[:2]))),
    ),
    "any smaller": (
        "The first that differs decides",
        lambda a, b: any(x < y for x, y in zip(padded(a), padded(b), strict=True)),
    ),
    "joined digits": (
        "you join the digits",
        lambda a, b: int("".join(map(str, numbers(a)))) < int("".join(map(str, numbers(b)))),
    ),
    "a build": (
        "cut off what follows a +",
        lambda a, b: (
            [int(x) for x in (a + ".0.0").split(".")[:3]] < [int(x) for x in (b + ".0.0").split(".")[:3]]
        ),
    ),
    "a float of it all": ("make an int of each part", lambda a, b: float(a) < float(b)),
    "always": ("the same of all versions", lambda a, b: True),
    "a word": ("True or False", lambda a, b: "older" if padded(a) < padded(b) else "newer"),
    "a number": ("True or False", lambda a, b: int(padded(a) < padded(b))),
}


# ---- 07-card ---------------------------------------------------------------------------------


def table(card):
    rows = (re.match(r"\|\s*([^|]*?)\s*\|\s*([^|]*?)\s*\|", line) for line in card.splitlines())
    return {row[1].lower(): row[2] for row in rows if row}


def by_expression(card, needed):
    said = table(card)
    return [name for name in needed if not said.get(name.lower())]


def with_a_loop(card, needed):
    result = list(needed)
    for line in card.split("\n"):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 4 and parts[2] != "":
            result = [name for name in result if name.casefold() != parts[1].casefold()]
    return result


def found(card, needed):
    return [name for name in needed if name not in by_expression(card, needed)]


RIGHT["07-card"] = [
    by_expression,
    with_a_loop,
    lambda card, needed: tuple(by_expression(card, needed)),
    lambda card, needed: (name for name in by_expression(card, needed)),
    lambda card, needed: np.array(by_expression(card, needed), dtype=object),
    lambda card, needed: filter(lambda name: not table(card).get(name.lower()), needed),
]
WRONG["07-card"] = {
    "what it has": ("return what it lacks", found),
    "anywhere": (
        "you search the whole text",
        lambda card, needed: [n for n in needed if n.lower() not in card.lower()],
    ),
    "anywhere, in its letters": (
        "you search the whole text",
        lambda card, needed: [name for name in needed if name not in card],
    ),
    "empty counts": (
        "a row without a value",
        lambda card, needed: [name for name in needed if name.lower() not in table(card)],
    ),
    "letters": (
        "compare in small letters",
        lambda card, needed: [
            n
            for n in needed
            if n not in re.findall(r"^\|\s*(.+?)\s*\|\s*[^|\s][^|]*\|", card, flags=re.MULTILINE)
        ],
    ),
    "beginnings": (
        "is another row",
        lambda card, needed: [
            n for n in needed if not any(v and k.startswith(n.lower()) for k, v in table(card).items())
        ],
    ),
    "small names": (
        "in its letters",
        lambda card, needed: [name.lower() for name in by_expression(card, needed)],
    ),
    "sorted": ("do not sort", lambda card, needed: sorted(by_expression(card, needed))),
    "values": (
        "not at names",
        lambda card, needed: [
            n for n in needed if n.lower() not in [value.lower() for value in table(card).values()]
        ],
    ),
    "a count": ("names", lambda card, needed: len(by_expression(card, needed))),
    "a set": ("names", lambda card, needed: set(by_expression(card, needed))),
    "pairs": ("which are texts", lambda card, needed: [(n, "") for n in by_expression(card, needed)]),
    "nothing": ("it is", lambda card, needed: []),
}


# ---- 07-licence ------------------------------------------------------------------------------

KINDS = dict(
    A="permissive", B="copyleft", C="rules of use", D="none", E="threshold", F="copyleft"
)  # fmt: skip
RIGHT["07-licence"] = [
    KINDS,
    list(KINDS.values()),
    list(KINDS.items()),
    {letter.lower(): kind.upper() for letter, kind in KINDS.items()},
    KINDS | {"B": "copy-left", "C": "rules", "D": "no licence", "F": "share-alike"},
    np.array(list(KINDS.values())),
]
WRONG["07-licence"] = {
    "no licence is free": ("not free for that", KINDS | {"D": "permissive"}),
    "copyleft is permissive": ("these same terms", KINDS | {"B": "permissive"}),
    "rules are copyleft": ("forbids uses by name", KINDS | {"C": "copyleft"}),
    "threshold as rules": ("the number of your users", KINDS | {"E": "rules of use"}),
    "Wikipedia is free": ("share alike", KINDS | {"F": "permissive"}),
    "A binds": ("asks for its notice alone", KINDS | {"A": "copyleft"}),
    "two are wrong": ("the number of your users", KINDS | {"D": "permissive", "E": "permissive"}),
    "a letter short": ("name a kind for F", {k: v for k, v in KINDS.items() if k != "F"}),
    "an unknown kind": ("is no kind of the list", KINDS | {"A": "Apache"}),
    "one word": ("a dictionary with the letters", "permissive"),
    "too few": ("a dictionary with the letters", ["permissive", "copyleft"]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name):
    assert_right(name, RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_hear_what_is_wrong(name):
    assert_wrong(name, WRONG[name])


def test_the_kinds_of_the_exercise_are_those_of_the_table():
    assert set(checks.KINDS) <= {licence.kind for licence in LICENCES}
    assert set(checks.TRUTH.values()) == set(checks.KINDS)


# ---- helpers ---------------------------------------------------------------------------------


def test_a_published_model_is_found_by_the_hub_library_under_each_revision(tmp_path):
    from huggingface_hub import hf_hub_download, scan_cache_dir

    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.json").write_text(version, encoding="utf-8")
    cache = tmp_path / "hub"
    first = publish(cache, "a/b", tmp_path / "one", "main", "v1")
    second = publish(cache, "a/b", tmp_path / "two", "main")

    def read(revision):
        path = hf_hub_download(
            "a/b", "config.json", cache_dir=cache, revision=revision, local_files_only=True
        )
        with open(path, encoding="utf-8") as file:
            return file.read()

    wanted = {None: "two", "main": "two", "v1": "one", first: "one", second: "two"}
    assert {revision: read(revision) for revision in wanted} == wanted
    (repo,) = scan_cache_dir(cache).repos  # the library's own reading of the layout
    assert {r.commit_hash: sorted(r.refs) for r in repo.revisions} == {first: ["v1"], second: ["main"]}
    assert re.fullmatch("[0-9a-f]{40}", first)
    assert publish(cache, "a/b", tmp_path / "one") == first, "equal files are one commit"


def test_an_empty_folder_is_not_published(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file"):
        publish(tmp_path / "hub", "a/b", tmp_path / "empty")


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=11, d_model=8, n_layers=1, n_heads=2, context_length=16)
    return [GPT(shape).eval() for _ in range(2)]


def test_log_probability_is_minus_the_summed_cross_entropy_of_the_answer(models):
    prompt, answer = [1, 2, 3], [4, 5]
    logits = models[0](torch.tensor([prompt + answer]))[0]
    wanted = -F.cross_entropy(logits[2:4], torch.tensor(answer), reduction="sum")
    torch.testing.assert_close(log_probability(models[0], prompt, answer), wanted)
    with pytest.raises(ValueError, match="no token"):
        log_probability(models[0], [], answer)


def test_dpo_loss_is_ln_2_for_equal_models_and_the_closed_form_otherwise(models):
    policy, reference = models
    prompt, chosen, rejected = [1, 2], [3], [4, 5]
    assert dpo_loss(policy, policy, prompt, chosen, rejected) == pytest.approx(math.log(2))
    p, r = (
        [log_probability(model, prompt, answer).item() for answer in (chosen, rejected)] for model in models
    )
    margin = 0.3 * ((p[0] - r[0]) - (p[1] - r[1]))
    wanted = math.log(1 + math.exp(-margin))
    assert dpo_loss(policy, reference, prompt, chosen, rejected, beta=0.3) == pytest.approx(wanted, rel=1e-5)
    swapped = dpo_loss(policy, reference, prompt, rejected, chosen, beta=0.3)
    assert swapped - wanted == pytest.approx(margin, rel=1e-4)  # softplus(x) - softplus(-x) = x


def test_a_licence_is_found_where_a_package_states_it(monkeypatch):
    from email.message import Message

    from llmcourse.teach.chapters.ch07_tools_and_resources import licences

    about = Message()
    monkeypatch.setattr(licences.metadata, "metadata", lambda name: about)
    monkeypatch.setattr(licences.metadata, "files", lambda name: None)
    assert stated_licence("x") == ("-", "nowhere", False)
    about["Classifier"] = "License :: OSI Approved :: MIT License"
    assert stated_licence("x") == ("MIT License", "classifier", False)
    about["License"] = "MIT\nCopyright 2026"
    assert stated_licence("x") == ("MIT", "free text", False)
    about["License-Expression"] = "MIT"
    assert stated_licence("x") == ("MIT", "expression", False)


def test_what_a_licence_without_a_text_allows_is_nothing():
    by_kind = {licence.kind: licence for licence in LICENCES}
    assert not by_kind["none"].sell
    assert not by_kind["none"].pass_on
    assert by_kind["copyleft"].same_terms
    assert not by_kind["permissive"].same_terms
    assert by_kind["threshold"].threshold
    assert by_kind["rules of use"].rules_of_use
    assert len({licence.name for licence in LICENCES}) == len(LICENCES)
    assert all(re.search(r"\d|law|OSI", licence.source) for licence in LICENCES)
