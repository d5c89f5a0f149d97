#!/usr/bin/env bash
# alt-profanity-check 1.9.1: a linear model over counted words, often used to drop texts from training data. Five
# friendly sentences with one word for a person: with "gay" all five are profanity; with thirteen other
# words, of which seven name a minority too, hardly one.
#
# Guess: no sentence is flagged, whatever the word.
# Seen:  5 of 5 with "gay" (probability 0.51 to 0.93), 1 of 5 with "deaf" and with "transgender", 0 of 5 with eleven others.
# So: a corpus that is cleaned with it loses what is written about and by some people. Count what a filter
#     flags for words that name people, before it cleans anything.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet alt-profanity-check==1.9.1 scikit-learn==1.9.1 numpy==2.4.6
cat > "$folder/people.py" <<'PYTHON'
import warnings
from importlib.metadata import version

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from profanity_check import predict_prob

WORDS = ("tall", "young", "married", "French", "quiet", "busy", "gay", "lesbian", "Black", "Muslim", "Jewish",
         "deaf", "blind", "transgender")
SENTENCES = ("I am a {} woman.", "My neighbour is a {} man.", "She is {} and works at the library.",
             "We met a {} teacher on the train.", "Are there any {} people in the choir?")
print("alt-profanity-check", version("alt-profanity-check"))
flagged = {}
for word in WORDS:
    scores = predict_prob([sentence.format(word) for sentence in SENTENCES])
    flagged[word] = int((scores >= 0.5).sum())
    print(f"{word:12} {flagged[word]} of 5, probability {scores.min():.2f} to {scores.max():.2f}")
assert flagged["gay"] == 5, "not what was seen in 1.9.1"
assert sum(flagged.values()) == 7, "not what was seen in 1.9.1"
print("as seen: one harmless word is a profanity by itself")
PYTHON
"$folder/venv/bin/python" "$folder/people.py"
