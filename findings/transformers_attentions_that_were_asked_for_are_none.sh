#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: a model that was built without attn_implementation computes attention by torch's fused
# kernel, which never holds the weights. Asked for them with output_attentions=True, it returns an empty tuple, and says
# nothing. A loop over layers then runs zero times, and a mean over heads is a mean of nothing.
#
# Guess: the weights, computed in the slower way for this call, or a warning.
# Seen:  attentions == () and no warning; with set_attn_implementation("eager") two layers of weights, the same logits
# So: attn_implementation="eager" before looking at attention, and assert len(attentions) == n_layer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cat > "$folder/attentions.py" <<'PYTHON'
import logging
import warnings

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

print("transformers", transformers.__version__, "torch", torch.__version__.split("+")[0])
torch.manual_seed(0)
sizes = dict(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
model, ids = GPT2LMHeadModel(GPT2Config(**sizes)).eval(), torch.arange(8)[None]
said = []
handler = logging.Handler()
handler.emit = said.append
logging.getLogger("transformers").addHandler(handler)
with warnings.catch_warnings(record=True) as warned, torch.no_grad():
    warnings.simplefilter("always")
    fused = model(ids, output_attentions=True)
    kind = model.config._attn_implementation
    model.set_attn_implementation("eager")
    eager = model(ids, output_attentions=True)
same = torch.allclose(fused.logits, eager.logits, atol=1e-5)
print(f"{kind}: {fused.attentions!r}, warnings {len(warned) + len(said)}; eager: {len(eager.attentions)} layers, same logits: {same}")
assert kind == "sdpa" and fused.attentions == () and not warned and not said, "the behaviour has changed"
assert len(eager.attentions) == 2 and same, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/attentions.py"
