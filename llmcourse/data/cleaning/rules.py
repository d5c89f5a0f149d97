"""Rules that decide what of a web text is worth training on, each measurable by itself."""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable

from llmcourse.data.cleaning.dedup import words_of
from llmcourse.data.cleaning.pii import Span, find_pii, luhn_valid, mask_pii  # noqa: F401
from llmcourse.data.manifest import Files, fetch

GOPHER_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
# The commonest short words of each language, as any of its frequency lists has them.
FUNCTION_WORDS = {
    "en": "the of and to in is that for was with as it by",
    "fr": "le la les des et est une dans que pour qui sur pas du",
    "de": "der die das und ist nicht ein eine mit zu den von auf",
    "es": "el los las una que por con para como del se es su",
    "it": "il di che non una per sono con della gli del è anche",
    "ru": "и в не на что с по это как из но для его",
    "bg": "на и да за се от не са по това като с е",
}
SCRIPTS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff]", "ko": "[\uac00-\ud7af]", "ar": "[\u0600-\u06ff]"}


def quality_problems(text: str, min_words: int = 50, max_words: int = 100_000) -> list[str]:
    """Return what is wrong with a text, in the order of the rules; an empty list for a good one.

    Sources: the rules and limits of Rae et al. 2021, arXiv:2112.11446, appendix A.1.1.

    >>> quality_problems("Buy now!")
    ['too short', 'no common words']
    """
    words = text.split()
    lines = [line for line in text.splitlines() if line.strip()]
    problems = []
    if len(words) < min_words:
        problems.append("too short")
    if len(words) > max_words:
        problems.append("too long")
    if words and not 3 <= sum(map(len, words)) / len(words) <= 10:
        problems.append("odd word lengths")
    if words and (text.count("#") + text.count("...") + text.count("…")) / len(words) > 0.1:
        problems.append("symbols")
    if words and sum(any(map(str.isalpha, word)) for word in words) / len(words) < 0.8:
        problems.append("not words")
    if lines and sum(line.lstrip().startswith(("-", "*", "•", "·")) for line in lines) / len(lines) > 0.9:
        problems.append("bullets")
    if lines and sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > 0.3:
        problems.append("cut off")
    if len({word.strip(".,;:").lower() for word in words} & GOPHER_WORDS) < 2:
        problems.append("no common words")
    if words and most_common_run(words) > 0.2:
        problems.append("repetition")
    return problems


def most_common_run(words: list[str], n: int = 2) -> float:
    """Return the share of a text's characters that its commonest run of `n` words takes.

    Source: arXiv:2112.11446, table A1: at most 0.20 for two words.
    """
    runs = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not runs or len(words) < 4:
        return 0.0
    run, count = runs.most_common(1)[0]
    return count * len(run.replace(" ", "")) / sum(map(len, words)) if count > 1 else 0.0


def language_of(text: str) -> str:
    """Return the likeliest language code of `FUNCTION_WORDS` or `SCRIPTS`, or "" where nothing speaks.

    A fifth of the letters in a script of its own decides first, then the share of each
    language's commonest words. Made to be read; in practice, a trained classifier such as
    fastText's lid.176 or CLD3 does this, for 100 languages and shorter texts.

    >>> language_of("Ceci est une phrase, et elle est dans la langue que vous lisez.")
    'fr'
    """
    text = unicodedata.normalize("NFC", text)
    letters = sum(map(str.isalpha, text)) or 1
    shares = {code: len(re.findall(script, text)) / letters for code, script in SCRIPTS.items()}
    shares["zh"] = 0.0 if shares["ja"] > 0.05 else shares["zh"]  # Japanese mixes in Chinese characters
    code = max(shares, key=shares.get)
    if shares[code] > 0.2:
        return code
    words = Counter(words_of(text.lower()))
    hits = {code: sum(words[word] for word in common.split()) for code, common in FUNCTION_WORDS.items()}
    code = max(hits, key=hits.get)
    return code if hits[code] >= 0.03 * words.total() and hits[code] > 0 else ""


def repeated_lines(texts: Iterable[str], min_documents: int) -> set[str]:
    """Return the lines that stand in at least `min_documents` texts: menus, footers, cookie notes."""
    counts: Counter = Counter()
    for text in texts:
        counts.update({line.strip() for line in text.splitlines() if line.strip()})
    return {line for line, count in counts.items() if count >= min_documents}


def drop_lines(text: str, lines: set[str]) -> str:
    """Return a text without the lines in `lines`."""
    return "\n".join(line for line in text.splitlines() if line.strip() not in lines).strip()


def load_toxicity(quiet: bool = False) -> Callable[[list[str]], list[float]]:
    """Return a function from texts to the probability, for each, that it insults or swears.

    A linear classifier on counted words, trained by others on comments (alt-profanity-check).
    Where it is absent, a list of five words stands in.
    """
    import io

    files = fetch("toxicity", generate=lambda: Files(), quiet=quiet).files
    if not files:
        swearing = re.compile(r"(?<![a-z])(?:idiot|stupid|moron|fool|shut up)", re.IGNORECASE)
        return lambda texts: [1.0 if swearing.search(text) else 0.0 for text in texts]
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings():  # the numbers are the same with older and newer versions
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        parts = {name.rsplit("/", 1)[-1]: joblib.load(io.BytesIO(content)) for name, content in files.items()}
    vectorizer, model = parts["vectorizer.joblib"], parts["model.joblib"]
    return lambda texts: model.predict_proba(vectorizer.transform(texts))[:, 1].tolist() if texts else []


def precision_recall(found: set, true: set) -> tuple[float, float]:
    """Return (precision, recall): the share of `found` that is true, and of `true` that was found.

    Nothing found is a precision of 1, nothing to find a recall of 1.

    >>> precision_recall({1, 2, 3, 4}, {3, 4, 5})
    (0.5, 0.6666666666666666)
    """
    hits = len(found & true)
    return (hits / len(found) if found else 1.0, hits / len(true) if true else 1.0)
