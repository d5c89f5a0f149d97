"""The split: groups and texts stay whole, classes are everywhere, chapter 5a's films fall as they did."""

import random

import pytest

from llmcourse.data.sources.reviews import Review, split_by_movie
from llmcourse.finetune.table.columns import Table
from llmcourse.finetune.table.command import notes_on_units
from llmcourse.finetune.table.read import TableError
from llmcourse.finetune.table.split import place_of, split_table


def table_of(texts, labels, groups=None):
    return Table("t.csv", texts, labels, groups, list(range(2, len(texts) + 2)), sorted(set(labels)), {}, [])


def sides(split):
    return split.train, split.validation, split.test


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_on_one_side_and_no_text_on_two(seed):
    rng = random.Random(seed)
    n, few = 600, [f"text {i}" for i in range(300)]
    table = table_of(
        [rng.choice(few) for _ in range(n)],
        [rng.choice("ab") for _ in range(n)],
        [rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(n)],
    )
    split = split_table(table)
    assert sorted([*split.train, *split.validation, *split.test, *split.left_out]) == list(range(n))
    for what in (table.texts, table.groups):
        a, b, c = ({what[i] for i in side} for side in sides(split))
        assert not a & b
        assert not a & c
        assert not b & c
    assert split.left_out
    assert all({table.labels[i] for i in side} == {"a", "b"} for side in sides(split))


def test_without_groups_copies_stay_together_and_nothing_is_left_out():
    table = table_of(
        [f" Text {i % 90}" if i % 2 else f"text  {i % 90}" for i in range(900)], ["a", "b", "c"] * 300
    )
    split = split_table(table)
    texts = [{table.texts[i].casefold().split()[1] for i in side} for side in sides(split)]
    assert sum(map(len, texts)) == 90
    assert not split.left_out
    assert 0.1 < len(split.test) / 900 < 0.3


def test_films_fall_on_the_sides_of_chapter_5a():
    films = [f"film_{i}" for i in range(300)]
    reviews = [Review(f"text {i}", i % 2, films[i % 300]) for i in range(3000)]
    theirs = split_by_movie(reviews)
    table = table_of([r.text for r in reviews], [str(r.label) for r in reviews], [r.movie for r in reviews])
    split = split_table(table)
    assert split.salt == ""
    for mine, yours in zip(sides(split), theirs, strict=True):
        assert [table.texts[i] for i in mine] == [review.text for review in yours]


def test_rows_stay_on_their_side_when_the_table_grows():
    small = table_of([f"text {i}" for i in range(200)], ["a", "b"] * 100)
    large = table_of([f"text {i}" for i in range(500)], ["a", "b"] * 250)
    before, after = split_table(small), split_table(large)
    for old, new in zip(sides(before), sides(after), strict=True):
        assert set(old) <= set(new)


def test_a_rare_class_gets_another_salt():
    rare = next(i for i in range(1000) if all(place_of(f"text {i + k}") > 0.3 for k in range(10)))
    texts = [f"text {i}" for i in range(rare, rare + 200)]
    table = table_of(texts, ["rare"] * 10 + ["a", "b"] * 95)
    split = split_table(table)
    assert split.salt
    assert all("rare" in {table.labels[i] for i in side} for side in sides(split))


def test_a_class_that_cannot_be_tested_is_refused():
    groups = [f"g{i}" for i in range(8)] * 10
    labels = ["only here" if group == "g3" else "ab"[i % 2] for i, group in enumerate(groups)]
    with pytest.raises(TableError, match="'only here' lies in 1 of the groups only"):
        split_table(table_of([f"t{i}" for i in range(80)], labels, groups))
    classes = [f"c{i % 30}" for i in range(90)]
    with pytest.raises(TableError, match=r"no split of 90 texts .* 30 classes"):
        split_table(table_of([f"t{i}" for i in range(90)], classes))


def test_the_test_holds_two_groups_or_more():
    texts, labels = [f"t{i}" for i in range(60)], ["a", "b"] * 30
    with pytest.raises(TableError, match=r"no split of 3 groups .* two groups or more in the test"):
        split_table(table_of(texts, labels, [f"g{i // 20}" for i in range(60)]))
    table = table_of(texts, labels, [f"g{i // 10}" for i in range(60)])
    split = split_table(table)
    assert len({table.groups[i] for i in split.test}) >= 2
    (note,) = notes_on_units(table, split)
    assert "groups only: its intervals and p-values are too sure" in note
    table = table_of([f"t{i}" for i in range(200)], ["a", "b"] * 100)
    assert notes_on_units(table, split_table(table)) == []
