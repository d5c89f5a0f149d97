#!/usr/bin/env bash
# torch 2.13.0: in a model whose output matrix is its embedding (tied weights), prune.l1_unstructured(model.output, "weight")
# cuts what the output multiplies by, and leaves the embedding whole: the two are no longer tied while you measure and train.
# prune.remove, "make the pruning permanent", then writes the zeros into the one tensor, so the embedding loses them too:
# the model that is saved is not the one that was measured.
#
# Guess: removing the hooks changes nothing that the model computes
# Seen:  the loss is 1.442 with the mask and 1.356 after prune.remove (unpruned 1.170); the embedding's share of zeros goes
#        from 0 to 0.5
# So: leave tied matrices out, or measure after prune.remove. Pruning model.embedding leaves the output whole in the same way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/tied.py" <<'PYTHON'
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.output = nn.Linear(8, 50, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids):
        return self.output(self.embedding(ids))


torch.manual_seed(0)
model, ids = Model(), torch.arange(50)
seen = []


def look(when):
    loss, zeros = F.cross_entropy(model(ids), ids).item(), (model.embedding.weight == 0).float().mean().item()
    seen.append((loss, zeros))
    print(f"{when}: loss {loss:.3f}, share of zeros in the embedding {zeros:.2f}")


print("torch", torch.__version__.split("+")[0])
look("before      ")
prune.l1_unstructured(model.output, "weight", amount=0.5)
look("pruned      ")
prune.remove(model.output, "weight")
look("after remove")
assert abs(seen[1][0] - seen[2][0]) > 0.05 and (seen[1][1], seen[2][1]) == (0.0, 0.5), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/tied.py"
