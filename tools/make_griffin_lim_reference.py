"""Write what librosa's Griffin-Lim makes of a chirp: `pip install librosa==0.11.0` first, in another environment.

The test of llmcourse/speech/griffin_lim.py compares with it; so librosa is no dependency.
"""

from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parents[1] / "tests" / "speech" / "librosa_griffin_lim.npz"


def main() -> None:
    import librosa

    t = np.arange(1600) / 8000
    wave = (0.4 * np.sin(2 * np.pi * (300 * t + 900 * t**2))).astype(np.float32)
    shape = dict(n_fft=128, hop_length=32, pad_mode="reflect")
    strengths = np.abs(librosa.stft(wave, **shape))
    waves = {
        f"wave_{momentum}_{rounds}": librosa.griffinlim(
            strengths, n_iter=rounds, momentum=momentum, init=None, **shape
        )
        for momentum in (0.0, 0.99)
        for rounds in (0, 1, 8)
    }
    np.savez_compressed(TARGET, strengths=strengths, **waves)
    print(f"librosa {librosa.__version__}: {', '.join(waves)} written to {TARGET.name}")


if __name__ == "__main__":
    main()
