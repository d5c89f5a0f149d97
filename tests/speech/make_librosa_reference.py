"""Write librosa_griffin_lim.npz: what librosa 0.11.0 makes of a chirp's strengths. `pip install librosa==0.11.0` first."""

from pathlib import Path

import librosa
import numpy as np

t = np.arange(1600) / 8000
wave = (0.4 * np.sin(2 * np.pi * (300 * t + 900 * t**2))).astype(np.float32)
strengths = np.abs(librosa.stft(wave, n_fft=128, hop_length=32, pad_mode="reflect"))
waves = {
    f"wave_{momentum}_{rounds}": librosa.griffinlim(
        strengths, n_iter=rounds, hop_length=32, n_fft=128, momentum=momentum, init=None, pad_mode="reflect"
    )
    for momentum in (0.0, 0.99)
    for rounds in (0, 1, 8)
}
np.savez_compressed(Path(__file__).parent / "librosa_griffin_lim.npz", strengths=strengths, **waves)
print(librosa.__version__, {name: value.shape for name, value in waves.items()})
