"""Exercises of chapter 0: how exercises work."""

from llmcourse.teach.exercises import exercise, require


@exercise(
    "00-tokens",
    "Read a number off the model",
    minutes=2,
    difficulty=1,
    hints=(
        "The list of probabilities above is sorted: the likeliest token comes first.",
        "It stands between quotation marks, with the space that belongs to it.",
    ),
    solution=" be",
)
def check_tokens(answer):
    """The likeliest next token, space included or not."""
    require(isinstance(answer, str), f"give the token as text in quotation marks, not {answer!r}")
    require(answer.strip() == "be", f"{answer!r} is not the likeliest: look at the first line of the list")
    return "the model has read the plays, though not this line's continuation by heart."


def mean(losses):
    """The mean of a list of numbers."""
    return sum(losses) / len(losses)


@exercise(
    "00-mean",
    "Write a function",
    minutes=2,
    difficulty=1,
    hints=(
        "Add the numbers up, divide by how many there are.",
        "sum(losses) and len(losses) are all you need.",
    ),
    solution=mean,
)
def check_mean(answer):
    """A mean, not a sum, not an integer division."""
    value = answer([1.0, 2.0, 6.0])
    require(isinstance(value, int | float), f"return one number, not {value!r}")
    require(value != 9.0, "that is the sum: divide by how many there are")
    require(value != 2.0, "that is the median, the middle one; the mean is the sum divided by the count")
    require(abs(value - 3.0) < 1e-9, f"the mean of 1, 2 and 6 is 3; you return {value}")
    require(abs(answer([1, 2]) - 1.5) < 1e-9, "the mean of 1 and 2 is 1.5: divide with /, not //")
    return "every check works like this: it tries your function and says what it saw."
