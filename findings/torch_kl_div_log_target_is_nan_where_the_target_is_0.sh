#!/usr/bin/env bash
# torch 2.13.0: F.kl_div (and nn.KLDivLoss) takes the target as probabilities, or with log_target=True as their logarithms. A
# probability of 0, as of a token that the teacher excludes, adds nothing with the first, as 0 ln 0 = 0 says; with the second,
# where it is -inf, the divergence is NaN: exp(-inf) is 0, and 0 times -inf is not.
#
# Guess: both forms give one value
# Seen:  0.367 with log_target=False, nan with log_target=True; the gradient in the input is right in both
# So: give probabilities where some may be 0 (attention masks, top-k teachers, constrained decoding), or p.log().clamp(min=-1e30).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/divergence.py" <<'PYTHON'
import math

import torch
import torch.nn.functional as F

teacher = torch.tensor([[0.5, 0.5, 0.0]])
student = torch.tensor([[0.4, 0.3, 0.3]]).log().requires_grad_()
by_hand = sum(p * math.log(p / q) for p, q in ((0.5, 0.4), (0.5, 0.3)))
found, gradients = [], []
for target, log_target in ((teacher, False), (teacher.log(), True)):
    value = F.kl_div(student, target, reduction="batchmean", log_target=log_target)
    gradients.append(torch.autograd.grad(value, student)[0].tolist())
    found.append(value.item())
print("torch", torch.__version__.split("+")[0])
print(f"by hand {by_hand:.3f} | log_target=False {found[0]:.3f} | log_target=True {found[1]:.3f}")
print("gradients", gradients)
assert abs(found[0] - by_hand) < 1e-6 and math.isnan(found[1]), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/divergence.py"
