#!/usr/bin/env bash
# scipy 1.17.1: one NaN among the paired scores of two models. The t-test says nan, as one would expect of
# nan_policy="propagate". The two resampling tests have no nan_policy, and find the most significant p-value
# that they can give: a comparison with NaN is never true, so no resample counts as "at least as extreme".
# A diverged run then looks like a proven difference.
#
# Guess: nan, or a ValueError.
# Seen:  ttest_rel p = nan; permutation_test p = 0.0 (exact, 16 sign flips, even the observed one is not
#        counted) and 0.0004 (4,999 random ones, both sides); monte_carlo_test p = 0.0004
# So: look at the scores before the test, not at its p-value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
cat > "$folder/nan.py" <<'PYTHON'
import math

import numpy as np
import scipy
from scipy.stats import monte_carlo_test, permutation_test, ttest_rel


def mean_difference(x, y, axis=-1):
    return np.mean(x - y, axis=axis)


few = np.array([0.7, math.nan, 0.5, 0.9]), np.array([0.6, 0.8, 0.4, 0.7])
many = np.arange(40) / 40, np.arange(40)[::-1] / 40
many[0][3] = math.nan
t = ttest_rel(*few).pvalue
exact = permutation_test(few, mean_difference, permutation_type="samples").pvalue
random = permutation_test(
    many, mean_difference, permutation_type="samples", n_resamples=4999, rng=np.random.default_rng(0)
).pvalue
monte_carlo = monte_carlo_test(
    few[0], np.random.default_rng(0).normal, np.mean, vectorized=True, n_resamples=4999
).pvalue
print("scipy", scipy.__version__)
print("ttest_rel p =", t)
print("permutation_test p =", exact, "and", random)
print("monte_carlo_test p =", monte_carlo)
assert math.isnan(t), "the behaviour has changed"
assert (exact, round(random, 6), round(monte_carlo, 6)) == (0.0, 0.0004, 0.0004), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/nan.py"
