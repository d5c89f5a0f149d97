"""The map of the course in `00_start_here`."""

from matplotlib.axes import Axes

from llmcourse.teach.diagrams.course import course_map

# The order of study. A chapter stands as its number and a word or two; a notebook's name begins with the number.
PARTS = {
    "A first look": ["00 start here", "01 background", "02 concepts"],
    "The machine from the inside": ["04a attention", "04b heads", "04c positions", "03a architecture"],
    "Its training": [
        "03b data",
        "03b tokenizer",
        "03c pretraining",
        "03d fine-tuning",
        "03e evaluation",
        "03e significance",
    ],
    "Practice": [
        "05a transformers",
        "05b TensorBoard",
        "05c techniques",
        "05c tuning",
        "05c precision",
        "05d clinic",
    ],
    "Applications": ["06a translation", "06b summaries", "06c generation", "06d speech", "06e synthesis"],
    "Tools and the future": [
        "07 tools",
        "08a efficiency",
        "08b inside",
        "08c safety",
        "08d alignment",
        "09 questions",
    ],
}


def chapters() -> Axes:
    """Draw the chapters as boxes, joined in the order of study.

    >>> chapters().texts[1].get_text()
    '00'
    """
    return course_map(PARTS)
