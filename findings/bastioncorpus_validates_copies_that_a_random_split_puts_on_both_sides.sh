#!/usr/bin/env bash
# bastioncorpus 0.6.0: 181 texts, each an attack or a harmless look-alike, to measure filters of prompt injections.
# `bastioncorpus validate` compares ids, not texts, and says that all rows are valid. Two rows are the same text,
# one called base64 and one base64url; others are copies with a few words changed, in other categories. A filter
# that is cross-validated in random folds has met its test in training.
#
# Guess: 181 different texts, and a filter about as good in random folds as on categories that it never saw.
# Seen:  180 different texts, while validate passes. TF-IDF with logistic regression, random folds: 95 % of the
#        attacks found and 37 % of the look-alikes flagged; each category of attack left out in turn: 70 % and
#        57 % (a filter that tosses a coin finds as many as it flags).
# (Copies and new categories together make that difference.)
# So: split by category, and keep near copies on one side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet bastioncorpus==0.6.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/bastioncorpus" validate
cat > "$folder/copies.py" <<'PYTHON'
from collections import Counter

import numpy as np
from bastioncorpus import load_corpus
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

rows = load_corpus()
texts, bad = [row.text for row in rows], np.array([row.is_malicious for row in rows])
print(len(rows), "rows,", len(set(texts)), "texts")
for text, count in Counter(texts).items():
    if count > 1:
        print("the same text:", [(row.id, row.tactic) for row in rows if row.text == text])


def found_and_flagged(folds):
    flags = np.zeros(len(rows), bool)
    for fold in np.unique(folds):
        views = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
        )
        model = make_pipeline(views, LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000))
        model.fit([texts[i] for i in np.nonzero(folds != fold)[0]], bad[folds != fold])
        flags[folds == fold] = model.predict([texts[i] for i in np.nonzero(folds == fold)[0]])
    return flags[bad].mean(), flags[~bad].mean()


attacks = sorted({row.category for row in rows if row.is_malicious})
sizes = Counter(row.category for row in rows if not row.is_malicious)
fold, load = {category: i for i, category in enumerate(attacks)}, [0] * len(attacks)
for category, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
    fold[category] = int(np.argmin(load))
    load[fold[category]] += size
at_random = found_and_flagged(np.random.default_rng(0).permutation(len(rows)) % len(attacks))
apart = found_and_flagged(np.array([fold[row.category] for row in rows]))
print("random folds: found %.2f, flagged wrongly %.2f" % at_random)
print("categories apart: found %.2f, flagged wrongly %.2f" % apart)
assert (len(rows), len(set(texts))) == (181, 180), "not what was seen in 0.6.0"
assert at_random[0] > apart[0] + 0.15, "not what was seen in 0.6.0"
assert at_random[1] < apart[1] - 0.1, "not what was seen in 0.6.0"
print("as seen: copies help in random folds, and only there")
PYTHON
"$folder/venv/bin/python" "$folder/copies.py"
