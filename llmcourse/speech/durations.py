"""How long each label lasts, from the alignment of a recognizer that was trained without times.

Dimensions: T frames, L labels.
"""

from collections.abc import Sequence

from torch import Tensor

from llmcourse.speech.ctc import align
from llmcourse.speech.features import normalized
from llmcourse.speech.recognizer import Recognizer


def durations_of(places: Sequence[int]) -> list[int]:
    """Return the frames (L,) of each label of an alignment, as `ctc.align` gives it: T places, -1 for a blank.

    CTC marks a label with a spike of a frame or two, and fills the rest with blanks. So the blanks between
    two spikes are shared out, half to either label (the odd one to the first), and those at the ends go to
    the outermost labels: the sum is T. Raises ValueError for an alignment without a label, and one whose
    labels do not come in order.

    >>> durations_of([-1, 0, 0, -1, -1, -1, 1])
    [5, 2]
    """
    spikes = [(frame, int(place)) for frame, place in enumerate(places) if place >= 0]
    order = [
        place for place, before in zip(spikes, [(-1, -1), *spikes], strict=False) if place[1] != before[1]
    ]
    if [place for _, place in order] != list(range(len(order))) or not order:
        raise ValueError(
            f"the labels stand at {[place for _, place in order][:8]}: give an alignment of `ctc.align`, "
            "with the labels 0, 1, 2, ... in order"
        )
    first = dict(reversed([(place, frame) for frame, place in spikes]))
    last = {place: frame for frame, place in spikes}
    cuts = [(last[i] + 1 + first[i + 1] + 1) // 2 for i in range(len(order) - 1)]
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, len(places)], strict=True)]


def align_clips(
    aligner: Recognizer, clips: Sequence[Tensor], texts: Sequence[Sequence[str]]
) -> list[list[int]]:
    """Return the durations, in frames, of the labels of each clip (T, M), whose texts are known.

    `clips` are features, not normalized; the aligner must keep every frame (strides of 1). Raises
    ValueError for one that does not, and for a clip with too few frames.
    """
    if aligner.n_frames(1000) != 1000:
        raise ValueError(
            f"the aligner has strides={aligner.config.strides} and drops frames: train one with strides of 1"
        )
    found = aligner.log_probabilities([normalized(clip) for clip in clips])
    labels = [aligner.labels_of(" ".join(text)) for text in texts]
    return [durations_of(align(row, text)) for row, text in zip(found, labels, strict=True)]
