#!/usr/bin/env bash
# scipy 1.17.1: minimize(method="L-BFGS-B") stops where the objective changes by less than ftol times the largest of its two
# values and 1 (its page says so): below 1, by less than ftol itself. And gtol is an absolute slope. So an objective that is small by its unit,
# such as a mean of squares of errors of a thousandth, is "converged" far from its minimum, with success=True;
# multiplied by a constant, which moves no minimum, it gives another answer.
#
# Guess: an objective times a constant has the same minimum to many digits, or success=False.
# Seen:  success True for both; the exponents 0.3703 and 0.3152 where 0.3478 and 0.3658 were planted, without any noise
# So: add up instead of averaging, divide errors by their own size, and compare the answer with that of 1000 times the objective.
# A published scaling law stopped so (Besiroglu et al. 2024, arXiv:2404.10102).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
cat > "$folder/early.py" <<'PYTHON'
import numpy as np
import scipy
from scipy.optimize import minimize
from scipy.special import logsumexp

rng = np.random.default_rng(0)
n, d = rng.uniform(np.log(5e7), np.log(1.6e10), 240), rng.uniform(np.log(1e9), np.log(1e11), 240)
planted = np.array([np.log(1.8172), np.log(482.01), 0.3478, np.log(2085.43), 0.3658])


def law(p):
    return np.stack([np.full(240, p[0]), p[1] - p[2] * n, p[3] - p[4] * d])


def mean_huber(p, factor):
    terms = law(p)
    total = logsumexp(terms, axis=0)
    shares, error = np.exp(terms - total), total - logsumexp(law(planted), axis=0)
    clipped = np.clip(error, -1e-3, 1e-3)
    slopes = clipped * shares
    gradient = [slopes[0].sum(), slopes[1].sum(), -slopes[1] @ n, slopes[2].sum(), -slopes[2] @ d]
    return factor * (clipped * (error - clipped / 2)).mean(), factor / 240 * np.array(gradient)


starts = [(e, a, x, a, x) for e in (-1, 0, 1) for a in (0, 10, 20) for x in (0, 0.5, 1)]
best = {}
for factor in (1.0, 1e6):
    fits = [minimize(mean_huber, start, (factor,), "L-BFGS-B", jac=True) for start in starts]
    best[factor] = min(fits, key=lambda fit: fit.fun)
    print("scipy", scipy.__version__, "| objective times", factor, "| success", best[factor].success,
          "| exponents", best[factor].x[[2, 4]].round(4), "| planted", planted[[2, 4]])
assert best[1.0].success and abs(best[1.0].x[4] - planted[4]) > 0.03, "the behaviour has changed"
assert np.allclose(best[1e6].x, planted, rtol=1e-3), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/early.py"
