#!/usr/bin/env bash
# accelerate 1.15.0: with gradient_accumulation_steps=4, an epoch of 5 batches makes two steps: one of four batches, one
# of the batch that is left. `backward` divides each loss by 4 all the same, so the gradient of the second step is a
# quarter of the mean over its batches. It is an own loop that is meant here, written as the documentation of `accumulate` shows it;
# the Trainer of transformers divides by what a group really holds.
#
# Guess: the last step has the mean gradient of its batches, as a batch of that size would give.
# Seen:  batches of equal gradient 1, 4 to a step: 8 batches give 1.0 and 1.0; 5 batches give 1.0 and 0.25
#        with sync_with_dataloader=False, 5 batches give 1.0 in the first epoch; the fifth waits for the next epoch
# So: let the number of batches be a multiple of the steps, or multiply the loss of the last group by what it lacks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 accelerate==1.15.0
cat > "$folder/last.py" <<'PYTHON'
from importlib.metadata import version

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin


def gradients(n_batches, sync=True):
    plugin = GradientAccumulationPlugin(num_steps=4, sync_with_dataloader=sync)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loader = torch.utils.data.DataLoader([torch.ones(1)] * n_batches)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    seen = []
    for x in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(x).sum())  # its gradient is 1 for each batch
            if accelerator.sync_gradients:
                seen.append(model.weight.grad.item())
            optimizer.step()
            optimizer.zero_grad()
    return seen


print("accelerate", version("accelerate"))
seen = gradients(8), gradients(5), gradients(5, sync=False)
print("8 batches:", seen[0], "| 5 batches:", seen[1], "| 5, sync_with_dataloader=False:", seen[2])
assert seen == ([1.0, 1.0], [1.0, 0.25], [1.0]), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/last.py"
