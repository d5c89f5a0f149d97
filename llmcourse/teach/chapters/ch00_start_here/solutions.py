"""Solutions of `00_start_here`: a right answer to each exercise."""


def mean(losses):
    """The mean of a list of numbers."""
    return sum(losses) / len(losses)


SOLUTIONS = {
    "00-tokens": " be",
    "00-mean": mean,
}
