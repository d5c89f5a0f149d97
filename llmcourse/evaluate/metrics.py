"""Scores for labels, probabilities and texts: thin over scikit-learn, sacrebleu, rouge-score and jiwer.

Texts come in the order (hypotheses, references) everywhere. Dimensions: N examples, K classes.
"""

import math
import operator
import unicodedata
from collections import Counter

import numpy as np
import torch

from llmcourse.support.inputs import class_row, id_row, number_row, plain, text_list, whole

LANGUAGES = ("en", "zh")


# ---- labels ---------------------------------------------------------------------------------


def classification_scores(predicted, labels) -> dict[str, float]:
    """Return accuracy, precision, recall and F1 of class 1, macro F1, and the majority's accuracy.

    `predicted` and `labels` are (N,) whole numbers or texts. Precision, recall and F1 come where the
    labels are 0 and 1. A class that is never predicted has precision 0. An answer that could not be
    read is None or -1: it is wrong, and no class of its own in macro F1 (unless -1 is a label).
    Raises ValueError for empty rows, rows of different length, and what is no class.

    >>> classification_scores([1, 0, 0, 0], [1, 1, 0, 0])["f1"].__round__(3)
    0.667
    >>> classification_scores([1, 0, None, 1], [1, 0, 1, 0])["recall"]
    0.5
    """
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    predicted, labels = _same_length(predicted=predicted, labels=labels)
    predicted, labels = class_row(predicted, "predicted", missing=True), class_row(labels)
    counts = Counter(labels)
    classes = counts.keys() | (set(predicted) - {None, -1})
    if len({isinstance(c, str) for c in classes}) > 1:
        raise ValueError(f"the classes {sorted(map(repr, classes))} are texts and numbers: give one kind")
    numbers = {c: i for i, c in enumerate(sorted(classes))}  # -1 for what is no class
    truth, guess = [numbers[c] for c in labels], [numbers.get(c, -1) for c in predicted]
    scores = {
        "accuracy": sum(map(operator.eq, truth, guess)) / len(truth),
        "majority": counts.most_common(1)[0][1] / len(truth),
        "macro_f1": float(
            f1_score(truth, guess, labels=range(len(numbers)), average="macro", zero_division=0)
        ),
    }
    if counts.keys() <= {0, 1}:
        of_class_1 = dict(labels=[numbers.get(1, len(numbers))], average="macro", zero_division=0)
        values = precision_recall_fscore_support(truth, guess, **of_class_1)
        scores |= {name: float(v) for name, v in zip(("precision", "recall", "f1"), values, strict=False)}
    return scores


# ---- probabilities --------------------------------------------------------------------------


def reliability(confidence, correct, n_bins: int = 10) -> list[tuple[float, float, int]]:
    """Return (mean confidence, accuracy, number of examples) of each bin that holds examples.

    `confidence` (N,) from 0 to 1 is cut into `n_bins` of equal width, closed on the left; 1.0
    belongs to the last. `correct` (N,) is 0 or 1. Raises ValueError for values outside, and NaN.

    >>> reliability([0.9, 0.9, 0.3], [1, 0, 0], n_bins=2)
    [(0.3, 0.0, 1), (0.9, 0.5, 2)]
    """
    confidence, correct = _same_length(confidence=confidence, correct=correct)
    confidence = number_row(confidence, "confidence", 0, 1, "probabilities, not logits")
    correct = number_row(correct, "correct", 0, 1, "1 where the answer is right, else 0")
    if not np.isin(correct, (0, 1)).all():
        raise ValueError("correct must be 0 or 1: say of each answer whether it is right")
    n_bins = whole(n_bins, "n_bins")
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence, side="right")
    groups = [bins == b for b in np.unique(bins)]
    return [(float(confidence[g].mean()), float(correct[g].mean()), int(g.sum())) for g in groups]


def expected_calibration_error(confidence, correct, n_bins: int = 10) -> float:
    """Return the mean gap between confidence and accuracy, each bin weighted by its examples.

    0 is perfect. Raises ValueError as `reliability` does.

    >>> expected_calibration_error([0.75] * 4, [1, 1, 1, 0])
    0.0

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    rows = reliability(confidence, correct, n_bins)
    total = sum(n for *_, n in rows)
    return sum(n / total * abs(accuracy - mean) for mean, accuracy, n in rows)


def fit_temperature(logits, labels) -> float:
    """Return the temperature T > 0 for which softmax(logits / T) gives the labels the smallest loss.

    `logits` (N, K), `labels` (N,) from 0 to K - 1. Fit it on validation data: no decision changes,
    only how sure the model says it is. Golden-section search over log T between 1/100 and 100; the
    loss has one valley there. Raises ValueError for logits that are not finite, rows that do not
    match, and where all logits of a row are equal in every row.

    Source: Guo et al. 2017, arXiv:1706.04599, sec. 4.2.
    """
    logits = _finite_logits(logits)
    labels = torch.from_numpy(id_row(labels, logits.shape[1], "labels", kind="classes"))
    if len(labels) != len(logits) or (logits == logits[:, :1]).all():
        raise ValueError(
            f"{len(labels)} labels for {len(logits)} rows of logits: give one for each row, and rows that "
            "are not all equal inside, else no temperature changes anything"
        )

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), labels).item()

    low, high, ratio = math.log(0.01), math.log(100.0), (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


# ---- texts ----------------------------------------------------------------------------------


def bleu(hypotheses: list[str], references: list[str] | list[list[str]], language: str = "en") -> float:
    """Return corpus BLEU, from 0 to 100, by sacrebleu: one score for all texts together.

    `references` holds one text for each hypothesis, or a list of several. `language="zh"` cuts
    Chinese into characters; without it a Chinese sentence is a single word. BLEU counts runs of up
    to four words, so where no text is as long, such as "你好", it is 0 by definition, even if all
    is right (mjpost/sacrebleu#114): show `cer` beside it. Raises ValueError for rows of different
    length, a reference or hypothesis that is no text, and an unknown language.

    >>> bleu(["the cat sat on the mat"], ["the cat sat on the mat"]).__round__(1)
    100.0
    >>> bleu(["你好"], ["你好"], "zh")
    0.0

    Source: Papineni et al. 2002; Post 2018, arXiv:1804.08771.
    """
    from sacrebleu import corpus_bleu

    rows = [[row] if isinstance(row, str) else row for row in plain(references, "references")]
    lists = [_texts(row, f"references[{i}]") for i, row in enumerate(rows)]
    hypotheses = _texts(hypotheses, "hypotheses")
    _check_pairs(hypotheses, lists, language)
    most = max(map(len, lists))
    streams = [[texts[i] if i < len(texts) else None for texts in lists] for i in range(most)]
    return corpus_bleu(hypotheses, streams, tokenize="zh" if language == "zh" else "13a").score


def rouge(hypotheses: list[str], references: list[str], language: str = "en") -> dict[str, float]:
    """Return the mean F-measures "rouge1", "rouge2" and "rougeL", from 0 to 1, by rouge-score.

    rouge-score knows the letters a-z and digits only: "Größe" and "Grüße" are equal to it, and a
    Chinese text is empty. `language="zh"` gives it a tokenizer for which each Chinese character is
    a word, and for which letters of all other scripts form words: use it for German or Russian too.
    English is not stemmed. Raises ValueError as `bleu`.

    >>> rouge(["Größe"], ["Grüße"])["rouge1"], rouge(["Größe"], ["Grüße"], "zh")["rouge1"]
    (1.0, 0.0)

    Source: Lin 2004, *ROUGE: A Package for Automatic Evaluation of Summaries*.
    """
    from rouge_score.rouge_scorer import RougeScorer

    hypotheses, references = _texts(hypotheses, "hypotheses"), _texts(references, "references")
    _check_pairs(hypotheses, references, language)
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, tokenizer=CharacterTokenizer() if language == "zh" else None)
    pairs = zip(references, hypotheses, strict=True)
    scores = [scorer.score(reference, hypothesis) for reference, hypothesis in pairs]
    return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in names}


def wer(hypotheses: list[str], references: list[str]) -> float:
    """Return the word error rate, by jiwer: wrong, missing and extra words for each reference word.

    0 is perfect, and above 1 is possible. Words are what white space of any kind separates
    (jitsi/jiwer#129); case and punctuation count, so normalize both sides first. Words said where
    the reference is silent are extra ones: count silent clips apart. Raises ValueError as `bleu`,
    and without any word to hear.

    >>> wer(["the cat sat"], ["the cat sat down"]), wer(["the\\ncat"], ["the cat"])
    (0.25, 0.0)
    """
    import jiwer

    hypotheses, references = _spoken(hypotheses, references)
    return float(jiwer.wer(references, hypotheses))


def cer(hypotheses: list[str], references: list[str]) -> float:
    """Return the character error rate, by jiwer: the measure for Chinese, which has no spaces.

    White space between words counts as one space, as in `wer`. Raises ValueError as `wer`.

    >>> cer(["今天天气好"], ["今天天气很好"]).__round__(3)
    0.167
    """
    import jiwer

    hypotheses, references = _spoken(hypotheses, references)
    return float(jiwer.cer(references, hypotheses))


class CharacterTokenizer:
    """For rouge-score: each Chinese character is a word; other letters and digits form words.

    >>> CharacterTokenizer().tokenize("GPT-2 会写诗。")
    ['gpt', '2', '会', '写', '诗']
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words and characters of a text, in lower case and without punctuation."""
        import regex

        return regex.findall(r"\p{Han}|[^\W\p{Han}_]+", text.lower())


def _same_length(**rows) -> list[list]:
    rows = {name: plain(row, name) for name, row in rows.items()}
    first, second = rows.values()
    if not first or len(first) != len(second) or any(isinstance(item, list) for item in first + second):
        raise ValueError(
            f"{' and '.join(rows)} have {len(first)} and {len(second)} items, or are tables: "
            "give two rows of equal length, with one item or more"
        )
    return [first, second]


def _finite_logits(logits) -> torch.Tensor:
    if not hasattr(logits, "dtype"):  # rows of rows; an array or a tensor is taken as it is
        rows = [
            number_row(row, f"logits[{i}]", wanted="a number: logits must be finite")
            for i, row in enumerate(plain(logits, "logits"))
        ]
        logits = np.stack(rows) if len({len(row) for row in rows}) == 1 else np.empty(0)
    logits = torch.as_tensor(logits).detach().cpu().double()
    if logits.dim() != 2 or not logits.numel() or not torch.isfinite(logits).all():
        raise ValueError(
            "logits must be finite numbers (N, K), a row for each example: a probability of exactly 0 "
            "or 1 has no logit; clip it"
        )
    return logits


def _texts(texts, name: str) -> list[str]:
    """Return texts in Unicode's form NFC: é is one letter, in whichever of two ways it was typed (UAX #15)."""
    return [unicodedata.normalize("NFC", text) for text in text_list(texts, name)]


def _check_pairs(hypotheses: list, references: list, language: str = "en") -> None:
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is unknown: choose one of {LANGUAGES}")
    if len(hypotheses) != len(references) or not hypotheses or [] in references:
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: "
            "there must be as many of both, and at least one"
        )


def _spoken(hypotheses, references) -> tuple[list[str], list[str]]:
    hypotheses, references = _texts(hypotheses, "hypotheses"), _texts(references, "references")
    _check_pairs(hypotheses, references)
    hypotheses, references = ([" ".join(text.split()) for text in row] for row in (hypotheses, references))
    if not any(references):
        raise ValueError("the references hold no word: an error rate needs at least one")
    return hypotheses, references
