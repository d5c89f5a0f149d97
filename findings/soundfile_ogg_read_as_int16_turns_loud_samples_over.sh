#!/usr/bin/env bash
# soundfile 0.14.0 (its libsndfile 1.2.2): lossy coding makes loud samples a little louder than the file that went in, so
# a decoded sample may lie beyond 1. Read as int16, MP3 is cut off at full scale; Ogg (Vorbis and Opus) is not: the
# sample comes back with the other sign. A loud recording is full of clicks, and no warning is given.
#
# Guess: a sample that int16 cannot hold is cut off, as soundfile does when it writes, whatever the format.
# Seen:  a square wave at 0.98: MP3 all of them cut off; Ogg Vorbis and Opus more than 99 of 100 with the other sign
# So: read compressed sound as float32, and cut off or scale by hand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 numpy==2.4.6
cat > "$folder/read.py" <<'PYTHON'
from io import BytesIO

import numpy as np
import soundfile

print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__)
wave = 0.98 * np.sign(np.sin(2 * np.pi * 200 * np.arange(16000) / 16000))
turned = {}
for kind, subtype in (("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")):
    file = BytesIO()
    soundfile.write(file, wave, 16000, format=kind, subtype=subtype)
    file.seek(0)
    floats, _ = soundfile.read(file, dtype="float32")
    file.seek(0)
    integers, _ = soundfile.read(file, dtype="int16")
    loud = np.abs(floats) > 1
    turned[kind, subtype] = np.mean(np.sign(integers[loud]) != np.sign(floats[loud]))
    print(kind, subtype or "", f"beyond 1: {loud.mean():.0%} of the samples; of these {turned[kind, subtype]:.1%} turned over")
assert turned["MP3", None] == 0, "the behaviour has changed"
assert min(turned["OGG", "VORBIS"], turned["OGG", "OPUS"]) > 0.99, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/read.py"
