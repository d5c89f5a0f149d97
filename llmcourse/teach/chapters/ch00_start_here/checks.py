"""Exercises of chapter 0: how exercises work."""

import math
import statistics
from functools import partial

from llmcourse.teach.examine import examine
from llmcourse.teach.exercises import exercise, require
from llmcourse.teach.forms import number, shown, text


@exercise(
    "00-tokens",
    "Read a number off the model",
    minutes=2,
    difficulty=1,
    hints=(
        "The list of probabilities above is sorted: the likeliest token comes first.",
        "It stands between quotation marks, with the space that belongs to it.",
    ),
    wants="value",
    form=partial(text, what="the token as text in quotation marks"),
)
def check_tokens(answer):
    """The likeliest next token, space included or not."""
    token = answer.strip().strip("'\"").strip()
    require(token == "be", f"{shown(answer)} is not the likeliest: look at the first line of the list")
    return "the model has read the plays, though not this line's continuation by heart."


@exercise(
    "00-mean",
    "Write a function",
    minutes=2,
    difficulty=1,
    hints=(
        "Add the numbers up, divide by how many there are.",
        "sum(losses) and len(losses) are all you need.",
    ),
    wants="function",
    form=number,
)
def check_mean(answer):
    """A mean, not a sum, not an integer division."""
    cases = {
        "the mean of 1, 2 and 6 is {right}; you return {value}": ([1.0, 2.0, 6.0],),
        "the mean of 1 and 2 is {right}; you return {value}": ([1, 2],),
        "the mean of 9.1, -3.5, 0.25 and 0 is {right}; you return {value}": ([9.1, -3.5, 0.25, 0.0],),
        "right for several numbers, but the mean of a single 7 is {right}; you return {value}": ([7],),
    }
    slips = {
        "that is the sum: divide by how many there are": sum,
        "that is the median, the middle one; the mean is the sum divided by the count": (
            statistics.median,
            statistics.median_low,
            statistics.median_high,
        ),
        "divide with /, not //: the mean of whole numbers need not be whole": lambda x: sum(x) // len(x),
        "that is the middle of the smallest and the largest: add up all numbers": (
            lambda x: (min(x) + max(x)) / 2
        ),
        "that is the first number alone: add up all of them": lambda x: x[0],
        "that is the last number alone: does `return` stand within the loop?": lambda x: x[-1],
        "that is the largest number: add up all of them, and divide by how many they are": max,
    }
    examine(answer, lambda x: math.fsum(x) / len(x), cases, slips)
    return "every check works like this: it tries your function and says what it saw."
