"""Film reviews in English and product reviews in Chinese, labelled good (1) or bad (0)."""

import bz2
import csv
import hashlib
import io
import random
from dataclasses import dataclass

from llmcourse.data.manifest import Files, fetch

GOOD = ("moving", "funny", "clever", "warm", "splendid", "fresh")
BAD = ("dull", "clumsy", "noisy", "empty", "tired", "stale")
NOUNS = ("film", "story", "script", "cast", "ending", "comedy")
CSV = "generated/rotten_tomatoes_corpus_full.csv.bz2"


@dataclass(frozen=True)
class Review:
    """A review, its label (1 good, 0 bad), and the film it speaks of ("" where that is unknown)."""

    text: str
    label: int
    movie: str = ""


def stand_in_reviews(n_movies: int = 200, per_movie: int = 20, seed: int = 0) -> Files:
    """Return generated reviews in the form of the real file, one in ten with the wrong label."""
    rng = random.Random(seed)
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["category", "text", "movie_name", "has_plot_and_reviews"])
    for number in range(n_movies * per_movie):
        fresh = rng.random() < 0.58
        words = rng.sample(GOOD if fresh != (rng.random() < 0.1) else BAD, 2)
        text = (
            f"Number {number}: a {words[0]} and {words[1]} {rng.choice(NOUNS)} about a {rng.choice(NOUNS)}."
        )
        rows.writerow(["fresh" if fresh else "rotten", text, f"film_{number % n_movies}", "False"])
    return {CSV: bz2.compress(table.getvalue().encode("utf-8"))}


def stand_in_chinese_reviews(n: int = 4000, seed: int = 0) -> Files:
    """Return generated Chinese reviews in the form of the real files."""
    rng = random.Random(seed)
    things, praise, blame = "书酒店手机牛奶电脑衣服", "很好喜欢满意不错", "很差失望太慢退货"
    lines = {"pos": [], "neg": []}
    for number in range(n):
        kind, words = rng.choice((("pos", praise), ("neg", blame)))
        lines[kind].append(f"{rng.choice(things)}{''.join(rng.choices(words, k=6))}第{number}次。")
    return {f"generated/{kind}.txt": "\n".join(text).encode("utf-8") for kind, text in lines.items()}


def load_reviews(quiet: bool = False) -> list[Review]:
    """Return the English reviews, each text once, in the order of the file; says where they came from.

    1 is "fresh" and 0 is "rotten", the site's own words; summaries of plots are left out. Raises
    ValueError for a row whose label is neither.
    """
    (content,) = fetch("reviews-en", generate=stand_in_reviews, quiet=quiet).files.values()
    labels = {"fresh": 1, "rotten": 0}
    reviews: dict[str, Review] = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(bz2.decompress(content).decode("utf-8"))), 2):
        if row["category"] == "plot":
            continue
        if row["category"] not in labels:
            raise ValueError(f"row {number} has the label {row['category']!r}: it must be fresh or rotten")
        text = " ".join(row["text"].split())
        if text:
            reviews.setdefault(text, Review(text, labels[row["category"]], row["movie_name"]))
    return list(reviews.values())


def load_chinese_reviews(quiet: bool = False) -> list[Review]:
    """Return the Chinese reviews, each text once, good ones first; says where they came from.

    Half of the lines of the files are copies of others. A text that stands in both files says
    nothing and is left out.
    """
    files = fetch("reviews-zh", generate=stand_in_chinese_reviews, quiet=quiet).files
    texts = {name.rsplit("/", 1)[-1]: content.decode("utf-8").splitlines() for name, content in files.items()}
    sides = {
        1: dict.fromkeys(map(str.strip, texts["pos.txt"])),
        0: dict.fromkeys(map(str.strip, texts["neg.txt"])),
    }
    both = sides[0].keys() & sides[1].keys()
    return [Review(text, label) for label in (1, 0) for text in sides[label] if text and text not in both]


def split_by_movie(
    reviews: list[Review], validation: float = 0.1, test: float = 0.2
) -> tuple[list[Review], list[Review], list[Review]]:
    """Return (train, validation, test): all reviews of a film on one side, about these shares.

    The hash of the film's name decides (of the text, where no film is known), so no seed is
    needed. Raises ValueError when nothing would be left to train on.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"shares {validation} and {test} must be positive, with a sum below 1")
    parts: tuple[list[Review], list[Review], list[Review]] = ([], [], [])
    for review in reviews:
        key = hashlib.sha256((review.movie or review.text).encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(key[:6], "big") / 2**48
        parts[2 if place < test else 1 if place < test + validation else 0].append(review)
    if not parts[0]:
        raise ValueError(f"{len(reviews)} reviews are too few to split: nothing is left to train on")
    return parts
