"""Scores for labels, probabilities and texts: thin over scikit-learn, sacrebleu, rouge-score and jiwer.

Texts come in the order (hypotheses, references) everywhere. Dimensions: N examples, K classes.
"""

import math

import numpy as np
import torch

LANGUAGES = ("en", "zh")


# ---- labels ---------------------------------------------------------------------------------


def classification_scores(predicted, labels) -> dict[str, float]:
    """Return accuracy, precision, recall and F1 of class 1, macro F1, and the majority's accuracy.

    `predicted` and `labels` are (N,) whole numbers. A class that is never predicted has precision
    0. Raises ValueError for empty rows or rows of different length.

    >>> classification_scores([1, 0, 0, 0], [1, 1, 0, 0])["f1"].__round__(3)
    0.667
    """
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    predicted, labels = _same_length(predicted, labels)
    options = dict(average="binary", zero_division=0) if set(np.unique(labels)) <= {0, 1} else {}
    scores = {"accuracy": float((predicted == labels).mean())}
    scores["majority"] = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    scores["macro_f1"] = float(f1_score(labels, predicted, average="macro", zero_division=0))
    if options:
        names = ("precision", "recall", "f1")
        values = precision_recall_fscore_support(labels, predicted, **options)
        scores |= {name: float(value) for name, value in zip(names, values, strict=False)}
    return scores


# ---- probabilities --------------------------------------------------------------------------


def reliability(confidence, correct, n_bins: int = 10) -> list[tuple[float, float, int]]:
    """Return (mean confidence, accuracy, number of examples) of each bin that holds examples.

    `confidence` (N,) from 0 to 1 is cut into `n_bins` of equal width, closed on the left; 1.0
    belongs to the last. `correct` (N,) is 0 or 1. Raises ValueError for values outside.

    >>> reliability([0.9, 0.9, 0.3], [1, 0, 0], n_bins=2)
    [(0.3, 0.0, 1), (0.9, 0.5, 2)]
    """
    confidence, correct = _same_length(confidence, correct)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence must lie between 0 and 1: give probabilities, not logits")
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    groups = [bins == b for b in range(n_bins)]
    return [
        (float(confidence[group].mean()), float(correct[group].mean()), int(group.sum()))
        for group in groups
        if group.any()
    ]


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

    `logits` (N, K), `labels` (N,). Fit it on validation data: no decision changes, only how sure
    the model says it is. Golden-section search over log T between 1/100 and 100; the loss has one
    valley there. Raises ValueError for logits that are not finite.

    Source: Guo et al. 2017, arXiv:1706.04599, sec. 4.2.
    """
    logits = torch.as_tensor(np.asarray(logits), dtype=torch.float64)
    labels = torch.as_tensor(np.asarray(labels), dtype=torch.long)
    if not torch.isfinite(logits).all():
        raise ValueError("logits must be finite: a probability of exactly 0 or 1 has no logit; clip it")

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
    Chinese into characters; without it a Chinese sentence is a single word. Raises ValueError
    for lists of different length and for an unknown language.

    >>> bleu(["the cat sat on the mat"], ["the cat sat on the mat"]).__round__(1)
    100.0

    Source: Papineni et al. 2002; Post 2018, arXiv:1804.08771.
    """
    from sacrebleu import corpus_bleu

    _check_texts(hypotheses, references, language)
    lists = [[text] if isinstance(text, str) else list(text) for text in references]
    most = max(map(len, lists))
    streams = [[texts[i] if i < len(texts) else None for texts in lists] for i in range(most)]
    return corpus_bleu(hypotheses, streams, tokenize="zh" if language == "zh" else "13a").score


def rouge(hypotheses: list[str], references: list[str], language: str = "en") -> dict[str, float]:
    """Return the mean F-measures "rouge1", "rouge2" and "rougeL", from 0 to 1, by rouge-score.

    rouge-score knows the letters a-z and digits only: `language="zh"` gives it a tokenizer for
    which each Chinese character is a word. English is not stemmed. Raises ValueError as `bleu`.

    Source: Lin 2004, *ROUGE: A Package for Automatic Evaluation of Summaries*.
    """
    from rouge_score.rouge_scorer import RougeScorer

    _check_texts(hypotheses, references, language)
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, tokenizer=CharacterTokenizer() if language == "zh" else None)
    pairs = zip(references, hypotheses, strict=True)
    scores = [scorer.score(reference, hypothesis) for reference, hypothesis in pairs]
    return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in names}


def wer(hypotheses: list[str], references: list[str]) -> float:
    """Return the word error rate, by jiwer: wrong, missing and extra words for each reference word.

    0 is perfect, and above 1 is possible. Words are what spaces separate; case and punctuation
    count, so normalize both sides first. Raises ValueError as `bleu`, and without any word to hear.

    >>> wer(["the cat sat"], ["the cat sat down"])
    0.25
    """
    import jiwer

    _check_texts(hypotheses, references)
    if not any(text.split() for text in references):
        raise ValueError("the references hold no word: an error rate needs at least one")
    return float(jiwer.wer(list(references), list(hypotheses)))


def cer(hypotheses: list[str], references: list[str]) -> float:
    """Return the character error rate, by jiwer: the measure for Chinese, which has no spaces.

    >>> cer(["今天天气好"], ["今天天气很好"]).__round__(3)
    0.167
    """
    import jiwer

    _check_texts(hypotheses, references)
    if not any(text.strip() for text in references):
        raise ValueError("the references hold no character: an error rate needs at least one")
    return float(jiwer.cer(list(references), list(hypotheses)))


class CharacterTokenizer:
    """For rouge-score: each Chinese character is a word; other letters and digits form words.

    >>> CharacterTokenizer().tokenize("GPT-2 会写诗。")
    ['gpt', '2', '会', '写', '诗']
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words and characters of a text, in lower case and without punctuation."""
        import regex

        return regex.findall(r"\p{Han}|[^\W\p{Han}_]+", text.lower())


def _same_length(values, labels) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(values), np.asarray(labels)
    if values.ndim != 1 or values.shape != labels.shape or not len(values):
        raise ValueError(
            f"the shapes {values.shape} and {labels.shape} differ or are empty: give two rows of equal length"
        )
    return values, labels


def _check_texts(hypotheses, references, language: str = "en") -> None:
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is unknown: choose one of {LANGUAGES}")
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("give lists of texts: a single text is [text]")
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: "
            "there must be as many of both, and at least one"
        )
