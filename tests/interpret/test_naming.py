"""Names of units: rules against loops, scores against scikit-learn, units that were made to follow a rule."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_score, recall_score

from llmcourse.interpret.naming import (
    name_by_tokens,
    name_units,
    rule_table,
    strongly_active,
    structure_rules,
    token_rules,
)

PIECES = [
    "NURSE",
    ":",
    "\n",
    "I",
    " go",
    ".",
    "\n",
    "And",
    " come",
    " [",
    "Ex",
    "it",
    "]",
    "\n",
    "\n",
    "FO",
    "OL",
    ":\n",
    "A",
    "y",
]


def test_rules_on_tokens_are_those_of_a_loop():
    names = ["token '\\n'", "before 'FO'", "pair '\\n' 'And'"]
    table = rule_table(PIECES, names)
    for t, piece in enumerate(PIECES):
        before = PIECES[t - 1] if t else None
        assert table[t].tolist() == [piece == "\n", before == "FO", (before, piece) == ("\n", "And")]


def test_rules_on_places_say_what_one_reads():
    rules = structure_rules(PIECES)
    told = {
        name: [piece for piece, on in zip(PIECES, holds, strict=True) if on] for name, holds in rules.items()
    }
    assert told["place in a speaker's name"] == ["NURSE", ":", "FO", "OL", ":\n"]
    assert told["place in a stage direction"] == [" [", "Ex", "it"]
    assert told["place inside a word"] == ["it", "OL", "y"]
    assert told["place capitals only"] == ["NURSE", "I", "FO", "OL", "A"]
    assert told["place 1 after a line break"] == [
        ":",
        "I",
        "And",
        "FO",
        "A",
    ]  # before the first, from the beginning
    assert told["place white space"] == ["\n", "\n", "\n", "\n"]
    assert told["place punctuation"] == [":", ".", " [", "]", ":\n"]
    assert all(len(holds) == len(PIECES) for holds in rules.values())


def test_only_what_is_frequent_is_a_rule():
    pieces = ["a", "b"] * 30 + ["c"]
    assert token_rules(pieces) == [
        "token 'a'",
        "token 'b'",
        "before 'a'",
        "before 'b'",
        "pair 'a' 'b'",
        "pair 'b' 'a'",
    ]


def test_a_unit_is_active_above_half_of_what_it_reaches():
    reference = torch.tensor([[4.0, 0.0]] * 10 + [[1.0, 0.0]] * 5)
    codes = torch.tensor([[2.1, 1.0], [1.9, 0.0], [9.0, 5.0]])
    assert strongly_active(codes, reference).tolist() == [[1, 0], [0, 0], [1, 0]]


def test_units_get_the_rule_that_they_were_made_of_and_scores_are_those_of_sklearn():
    generator = torch.Generator().manual_seed(0)
    rules, new_rules = ((torch.rand(800, 6, generator=generator) < 0.2).float() for _ in range(2))
    names = [f"token {i}" for i in range(6)]
    flips, new_flips = (torch.rand(800, 3, generator=generator) < 0.02 for _ in range(2))
    made = [4, 0, 2]
    active = (rules[:, made].bool() ^ flips).float()
    new_active = (new_rules[:, made].bool() ^ new_flips).float()
    found = name_units(active, rules, new_active, new_rules, names)
    assert [name.rule for name in found] == ["token 4", "token 0", "token 2"]
    for name, rule in zip(found, made, strict=True):
        is_active, holds = new_active[:, name.unit].numpy(), new_rules[:, rule].numpy()
        assert name.recall == pytest.approx(recall_score(is_active, holds))
        assert name.precision == pytest.approx(precision_score(is_active, holds))
        assert name.good
        assert name.kind == "token"


def test_what_holds_by_luck_on_one_text_does_not_on_another():
    generator = torch.Generator().manual_seed(1)
    draw = lambda n: (torch.rand(400, n, generator=generator) < 0.1).float()  # noqa: E731
    found = name_units(draw(20), draw(300), draw(20), draw(300), list(map(str, range(300))))
    assert len(found) == 20
    assert not any(name.good for name in found)


def test_units_that_are_hardly_active_have_no_name_and_tables_must_fit():
    few = torch.zeros(100, 1)
    few[:19] = 1
    assert name_units(few, torch.ones(100, 1), torch.ones(100, 1), torch.ones(100, 1), ["x"]) == []
    with pytest.raises(ValueError, match="the same tokens"):
        name_units(few, torch.ones(99, 1), few, torch.ones(100, 1), ["x"])


def test_rules_of_real_text_agree_with_numpy():
    pieces = ["to", " be"] * 25
    table = rule_table(pieces, ["token 'to'", "before 'to'"])
    assert np.array_equal(table.numpy(), np.array([[1, 0], [0, 1]] * 25))


def test_a_unit_for_a_few_tokens_is_named_by_them():
    generator = torch.Generator().manual_seed(2)
    texts = [["say", "said", "cry", "go", "be"][i] for i in torch.randint(5, (600,), generator=generator)]
    active = torch.tensor([[piece in ("say", "said", "cry"), piece == "go"] for piece in texts]).float()
    active[::7, 0] = 0
    found = name_by_tokens(active[:300], texts[:300], active[300:], texts[300:])
    names = [set(name.rule.split()[1:]) for name in found]
    assert names == [{"'say'", "'said'", "'cry'"}, {"'go'"}]
    assert found[0].recall == 1
    assert found[0].precision == pytest.approx(
        precision_score(active[300:, 0], np.isin(texts[300:], ["say", "said", "cry"]))
    )
    assert (found[1].kind, found[1].precision, found[1].recall) == ("among", 1, 1)
    assert (
        len(name_by_tokens(active[:300], texts[:300], active[300:], texts[300:], most=1)[0].rule.split()) == 2
    )
