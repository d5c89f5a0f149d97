#!/usr/bin/env bash
# torch 2.13.0: the gradient of ctc_loss in its input, log_probs, is not the derivative of its value. It holds exp(log_probs)
# besides: the part that log_softmax would subtract afterwards. Through log_softmax the sum is right (that part changes
# nothing there); what reads the gradient of log_probs itself, or normalizes in another way, gets a wrong one.
#
# Guess: torch.autograd.gradcheck agrees, as for cross-entropy's nll_loss.
# Seen:  gradcheck fails for log_probs, by exactly exp(log_probs); it agrees for logits through log_softmax
# So: put nothing between log_softmax and ctc_loss that needs a gradient, such as a weight on labels or a mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/ctc.py" <<'PYTHON'
import torch
import torch.nn.functional as F

torch.manual_seed(0)
labels = torch.tensor([[1, 2, 2]])
logits = torch.randn(7, 1, 4, dtype=torch.double)


def loss(log_probs):
    return F.ctc_loss(log_probs, labels, [7], [3], reduction="sum")


def agrees(function, start):
    return torch.autograd.gradcheck(function, start.clone().requires_grad_(), raise_exception=False)


log_probs = logits.log_softmax(-1)
given = log_probs.clone().requires_grad_()
loss(given).backward()
step, true = 1e-6, torch.zeros_like(log_probs)
for i in range(log_probs.numel()):
    moved = log_probs.flatten().clone()
    moved[i] += step
    true.view(-1)[i] = (loss(moved.view_as(log_probs)) - loss(log_probs)) / step
excess = (given.grad - true - log_probs.exp()).abs().max().item()
print("torch", torch.__version__.split("+")[0])
print("gradcheck of logits:", agrees(lambda x: loss(x.log_softmax(-1)), logits), "| of log_probs:", agrees(loss, log_probs))
print("gradient - differences - exp(log_probs):", f"{excess:.0e}")
assert agrees(lambda x: loss(x.log_softmax(-1)), logits) and not agrees(loss, log_probs), "the behaviour has changed"
assert excess < 1e-4, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ctc.py"
