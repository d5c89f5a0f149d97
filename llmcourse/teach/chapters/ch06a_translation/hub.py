"""A translator of the hub, by the library's own functions; offline, a sentence on what it would show."""

from collections.abc import Sequence
from pathlib import Path

from llmcourse.data.manifest import is_offline


def marian(name: str | Path, texts: Sequence[str], num_beams: int = 4) -> list[str]:
    """Return translations by a Marian model: a folder, or a name of the hub such as "Helsinki-NLP/opus-mt-en-fr".

    Raises OSError where neither is to be had, and ImportError where the tokenizer of the model needs a
    package that is not there (sentencepiece, for those of the hub).
    """
    from transformers import AutoTokenizer, MarianMTModel

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = MarianMTModel.from_pretrained(name).eval()
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    ids = model.generate(**batch, num_beams=num_beams, max_new_tokens=128)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def marian_or_why_not(name: str, texts: Sequence[str]) -> list[str] | str:
    """Return what `marian` returns, or a sentence that says why there is nothing to show."""
    if is_offline():
        return f"HF_HUB_OFFLINE forbids the network: {name} would translate the texts here."
    try:
        return marian(name, texts)
    except (OSError, ImportError, ValueError) as error:
        return f"{name} could not be loaded ({type(error).__name__}): with the hub, it translates the texts here."
