"""An exercise of chapter 9: a split by group."""

import math

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise
from llmcourse.teach.forms import several, truth


@exercise(
    "09-split",
    "Split a table by group",
    minutes=10,
    difficulty=2,
    hints=(
        "list(dict.fromkeys(groups)) has each group once, in the order of its first row.",
        "Take one group after the other into the test part, and count its rows, until these are at least "
        "share * len(groups).",
        "Then look at each row: [group in test for group in groups].",
    ),
    wants="function",
    form=several(truth, what="truth values, one for each row"),
)
def check_split(answer):
    """Compare with the rule, on groups of one row and of many, side by side and apart."""

    def by_groups(
        enough=lambda rows, share, groups: rows >= share * len(groups),
        order=lambda groups: list(dict.fromkeys(groups)),
        flag=lambda inside: inside,
    ):
        def function(groups, share):
            test, rows = set(), 0
            for group in order(groups):
                if enough(rows, share, groups):
                    break
                test.add(group)
                rows += groups.count(group)
            return [flag(group in test) for group in groups]

        return function

    def cut_rows(rounded):
        return lambda groups, share: [i < rounded(share * len(groups)) for i in range(len(groups))]

    def share_of_groups(rounded):
        def function(groups, share):
            names = list(dict.fromkeys(groups))
            return [group in names[: rounded(share * len(names))] for group in groups]

        return function

    def at_most(groups, share):
        test, rows = set(), 0
        for group in dict.fromkeys(groups):
            if rows + groups.count(group) > share * len(groups):
                break
            test.add(group)
            rows += groups.count(group)
        return [group in test for group in groups]

    def neighbours(groups, share):
        """Each run of equal neighbours as a group of its own."""
        marked, rows, i = [False] * len(groups), 0, 0
        while i < len(groups) and rows < share * len(groups):
            j = i
            while j < len(groups) and groups[j] == groups[i]:
                marked[j] = True
                j += 1
            rows, i = rows + j - i, j
        return marked

    apart = ["Emma", "Ran", "Emma", "Jaws", "Ran", "Heat", "Jaws", "Emma", "Up", "Ran"]
    cases = {
        "for Emma, Ran, Emma, Jaws, Ran, Heat, Jaws, Emma, Up, Ran and a share of 0.4 you return {value}; it is {right}": (
            apart,
            0.4,
        ),
        "right for one table, but not where the rows of a group stand side by side": (
            ["a"] * 2 + ["b"] * 5 + ["c"] * 3 + ["d"] * 10,
            0.25,
        ),
        "where the groups taken have exactly the share, that is enough: stop": (["x", "y", "y", "z"], 0.25),
        "right for three tables, but not where each row is a group of its own": (list("abcdefg"), 0.3),
        "right for four tables, but not for groups that are numbers": ([3, 1, 3, 2, 2, 2, 1, 3, 3, 3], 0.55),
    }
    slips = {
        "the rows of a group are on both sides: the model would meet its test's films in training": (
            cut_rows(round),
            cut_rows(math.ceil),
            cut_rows(math.floor),
        ),
        "`share` is of the ROWS: groups differ in size": (
            share_of_groups(round),
            share_of_groups(math.ceil),
            share_of_groups(math.floor),
        ),
        "at LEAST that share: the group with which it is reached belongs to the test part too": at_most,
        "one group too many: stop as soon as the share is reached": by_groups(
            lambda rows, share, groups: rows > share * len(groups)
        ),
        "True is for the test part: yours is turned round": by_groups(flag=lambda inside: not inside),
        "in the order of their first row: you begin with the last group": by_groups(
            order=lambda groups: list(dict.fromkeys(groups))[::-1]
        ),
        "in the order of their first row: you sort the groups": by_groups(
            order=lambda groups: sorted(set(groups))
        ),
        "in the order of their first row: you begin with the largest group": by_groups(
            order=lambda groups: sorted(dict.fromkeys(groups), key=lambda g: -groups.count(g))
        ),
        "a group's rows need not be neighbours: yours is cut where another group comes between": neighbours,
    }
    examine(answer, by_groups(), cases, slips, rtol=0, atol=0)
    return "no film on both sides. Here the first groups are taken: shuffle them before."
