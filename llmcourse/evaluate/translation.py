"""Scores of translations: BLEU and chrF by sacrebleu, with their signatures, and a paired test for both.

Dimensions: N sentences, K statistics of a sentence, R resamples.
"""

from collections import Counter

import numpy as np

from llmcourse.support.inputs import text_list, whole

TOKENIZERS = {"en": "13a", "fr": "13a", "de": "13a", "zh": "zh"}
MAX_CELLS = 2_000_000
ORDER, BETA = 6, 2  # chrF as sacrebleu computes it by default: chrF2


def translation_scores(hypotheses: list[str], references: list[str], language: str) -> dict[str, float]:
    """Return "bleu" and "chrf" of all sentences together, 0-100, "exact" (a share) and "length".

    "length" is that of all hypotheses over that of all references, in BLEU's tokens. Chinese is cut
    into characters by sacrebleu's own tokenizer. Raises ValueError for an unknown language, and for
    lists that are empty or differ in length.

    >>> translation_scores(["打开文件夹"], ["打开文件夹"], "zh")["bleu"].__round__(1)
    100.0

    Source: Papineni et al. 2002; Popović 2015 (chrF); Post 2018, arXiv:1804.08771.
    """
    from sacrebleu.metrics import BLEU, CHRF

    hypotheses, references = _checked(hypotheses, references, language)
    bleu = BLEU(tokenize=TOKENIZERS[language]).corpus_score(hypotheses, [references])
    return {
        "bleu": bleu.score,
        "chrf": CHRF().corpus_score(hypotheses, [references]).score,
        "exact": sum(map(str.__eq__, hypotheses, references)) / len(references),
        "length": bleu.sys_len / max(1, bleu.ref_len),
    }


def signatures(language: str) -> list[str]:
    """Return what sacrebleu prints beside the two scores, so that another's numbers can be compared.

    >>> [text.split("|version")[0] for text in signatures("zh")]
    ['nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp', 'nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no']
    """
    from sacrebleu.metrics import BLEU, CHRF

    _checked(["a"], ["a"], language)
    metrics = [BLEU(tokenize=TOKENIZERS[language]), CHRF()]
    for metric in metrics:
        metric.corpus_score(["a b c d"], [["a b c d"]])  # the number of references is known after a score
    return [str(metric.get_signature()) for metric in metrics]


def sentence_chrf(hypotheses: list[str], references: list[str]) -> np.ndarray:
    """Return (N,) chrF of each sentence alone, from 0 to 100.

    >>> sentence_chrf(["the cat", ""], ["the cat", "the cat"]).tolist()
    [100.0, 0.0]
    """
    return chrf_from(chrf_statistics(hypotheses, references))


def chrf_statistics(hypotheses: list[str], references: list[str]) -> np.ndarray:
    """Return (N, 18): for runs of 1 to 6 characters, how many the hypothesis has, the reference, and both."""
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        a, b = ("".join(text.split()) for text in (hypothesis, reference))
        row = []
        for n in range(1, ORDER + 1):
            runs = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (a, b)]
            mine = runs[0].total() if runs[1] else 0  # as sacrebleu: no order that the reference lacks
            row += [mine, runs[1].total(), (runs[0] & runs[1]).total()]
        rows.append(row)
    return np.array(rows, dtype=float)


def chrf_from(statistics: np.ndarray) -> np.ndarray:
    """Return chrF (...,) of statistics (..., 18): F2 of mean precision and mean recall.

    The means are over the orders that both texts have.
    """
    mine, theirs, both = np.moveaxis(statistics.reshape(*statistics.shape[:-1], ORDER, 3), -1, 0)
    used = (mine > 0) & (theirs > 0)
    orders = np.maximum(used.sum(-1), 1)
    precision = (used * both / np.maximum(mine, 1)).sum(-1) / orders
    recall = (used * both / np.maximum(theirs, 1)).sum(-1) / orders
    return 100 * (1 + BETA**2) * precision * recall / np.maximum(BETA**2 * precision + recall, 1e-16)


def bleu_statistics(hypotheses: list[str], references: list[str], language: str) -> np.ndarray:
    """Return (N, 10): matches and totals of runs of 1 to 4 tokens, and both lengths, of each sentence."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize=TOKENIZERS[language], effective_order=True)
    scores = [metric.sentence_score(h, [r]) for h, r in zip(hypotheses, references, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=float)


def bleu_from(statistics: np.ndarray) -> np.ndarray:
    """Return BLEU (...,) of summed statistics (..., 10), with sacrebleu's smoothing of empty orders ("exp")."""
    counts, totals = statistics[..., :4], statistics[..., 4:8]
    mine, theirs = statistics[..., 8], statistics[..., 9]
    empty = (counts == 0) & (totals > 0)
    smoothed = 1 / (2.0 ** np.cumsum(empty, -1) * np.maximum(totals, 1))
    precision = np.where(empty, smoothed, counts / np.maximum(totals, 1))
    mean = np.exp(np.log(np.maximum(precision, 1e-300)).mean(-1))
    brevity = np.exp(np.minimum(0, 1 - theirs / np.maximum(mine, 1e-9)))
    return 100 * mean * brevity * (counts.sum(-1) > 0) * (totals > 0).all(-1)


def paired_p_value(
    a: list[str], b: list[str], references: list[str], language: str, metric="bleu", n_resamples=2000, seed=0
) -> tuple[float, float]:
    """Return (score of `a` minus score of `b`, p-value) of two systems on the same sentences.

    BLEU and chrF are scores of a whole corpus: no mean of sentences is taken. If the systems were equal,
    the two translations of a sentence could as well be swapped; p is how often random swaps give a
    difference as large, in either direction, the observed one counted too. Raises ValueError for an
    unknown metric or language, and for lists that differ in length.

    Source: Riezler & Maxwell 2005, *On some pitfalls in automatic evaluation*, sec. 3 (approximate
    randomization).
    """
    a, references = _checked(a, references, language)
    b, references = _checked(b, references, language)
    n_resamples = whole(n_resamples, "n_resamples")
    if metric == "bleu":
        score, rows = bleu_from, [bleu_statistics(texts, references, language) for texts in (a, b)]
    elif metric == "chrf":
        score, rows = chrf_from, [chrf_statistics(texts, references) for texts in (a, b)]
    else:
        raise ValueError(f'metric={metric!r} is unknown: choose "bleu" or "chrf"')
    total, change = [r.sum(0) for r in rows], rows[1] - rows[0]
    observed = score(total[0]) - score(total[1])
    rng, extreme, block = np.random.default_rng(seed), 0, max(1, MAX_CELLS // len(a))
    for start in range(0, n_resamples, block):
        swaps = rng.integers(2, size=(min(block, n_resamples - start), len(a)), dtype=np.int8)
        moved = swaps @ change  # (R, K)
        difference = score(total[0] + moved) - score(total[1] - moved)
        extreme += int((np.abs(difference) >= abs(observed) - 1e-9).sum())
    return float(observed), (extreme + 1) / (n_resamples + 1)


def _checked(hypotheses, references, language) -> tuple[list[str], list[str]]:
    if language not in TOKENIZERS:
        raise ValueError(f"language={language!r} is unknown: choose one of {sorted(TOKENIZERS)}")
    hypotheses, references = text_list(hypotheses, "hypotheses"), text_list(references, "references")
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: "
            "there must be as many of both, and at least one"
        )
    return hypotheses, references
