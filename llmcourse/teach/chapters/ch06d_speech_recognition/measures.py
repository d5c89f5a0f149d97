"""What chapter 6d measures: errors word by word, the state of a recognizer in training, nearest recordings."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.evaluate.metrics import wer
from llmcourse.evaluate.significance import bootstrap_interval
from llmcourse.speech.ctc import BLANK, greedy_decode
from llmcourse.speech.dtw import nearest_template
from llmcourse.speech.recognizer import Recognizer


def per_word(written: Sequence[str], said: Sequence[str], voices: Sequence) -> tuple[list, list]:
    """Return (errors, voices): each clip's errors shared out over its words, so that their mean is the word error rate.

    So the bootstrap of means (`significance.bootstrap_interval`, `groups=` the voices) is one of the rate.

    >>> per_word(["one two"], ["one two three"], ["ed"])
    ([0.3333333333333333, 0.3333333333333333, 0.3333333333333333], ['ed', 'ed', 'ed'])
    """
    errors, groups = [], []
    for hypothesis, reference, voice in zip(written, said, voices, strict=True):
        n = len(reference.split())
        errors += [wer([hypothesis], [reference])] * n
        groups += [voice] * n
    return errors, groups


def with_interval(written: Sequence[str], said: Sequence[str]) -> str:
    """Return the word error rate with its 95 % interval, by clip, as text.

    >>> with_interval(["one", "two"], ["one", "two"])
    '0.0% (0 to 0)'
    """
    errors, clips = per_word(written, said, range(len(said)))
    low, high = bootstrap_interval(errors, groups=clips)
    return f"{wer(written, said):.1%} ({100 * low:.0f} to {100 * high:.0f})"


def state(model: Recognizer, clips: list[Tensor], texts: list[str]) -> tuple[float, float]:
    """Return (share of frames in which the blank is likeliest, word error rate) of clips (T, M)."""
    found = model.log_probabilities(clips)
    blanks = torch.cat(found).argmax(-1).eq(BLANK).float().mean().item()
    return blanks, wer([model.text(greedy_decode(log_probs)) for log_probs in found], texts)


def nearest_texts(clips: list[Tensor], templates: list[Tensor], texts: list[str]) -> list[str]:
    """Return for each clip (T, M) the text of the nearest template, by dynamic time warping."""
    return [nearest_template(clip, templates, texts) for clip in clips]
