#!/usr/bin/env bash
# captum 0.9.0 (torch 2.13.0, transformers 5.23.0): IntegratedGradients on embeddings takes zeros as baseline where none is
# given. In a model whose blocks begin with a norm (Llama), a stream that is nearly 0 is made as large as any other by one norm
# after the other, so the model changes its answer several times within the first hundredth of the way, by more than
# the whole difference, where hardly a point lies. The scores miss what they should sum to by several times
# that sum, and more steps do not help; an embedding of any token as baseline gives the sum with the default 50.
#
# Guess: the convergence delta falls with n_steps, as for other baselines.
# Seen:  zeros: 50 steps -0.119, 200 -0.007, 800 -0.401, of a difference of -0.0155; token 1: 0.000000 of -0.4406 with 50
# So: give a baseline of a token's embedding, and look at return_convergence_delta (it can grow: captum issue 1334).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet captum==0.9.0 torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cat > "$folder/zeros.py" <<'PYTHON'
import captum
import torch
import transformers
from captum.attr import IntegratedGradients
from transformers import LlamaConfig, LlamaForSequenceClassification

print("captum", captum.__version__, "torch", torch.__version__.split("+")[0], "transformers", transformers.__version__)
transformers.logging.set_verbosity_error()
torch.manual_seed(0)
sizes = dict(vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
model = LlamaForSequenceClassification(LlamaConfig(**sizes, pad_token_id=0)).double().eval()
embed = lambda ids: model.get_input_embeddings()(torch.tensor([ids])).detach()
text, token = embed([5, 17, 42, 8, 77, 23]), embed([1] * 6)
forward = lambda embeddings: model(inputs_embeds=embeddings).logits
missed = {}
for name, baseline in (("zeros", None), ("token 1", token)):
    start = torch.zeros_like(text) if baseline is None else baseline
    difference = (forward(text) - forward(start))[0, 1].item()
    for n_steps in (50, 200, 800):
        options = dict(target=1, n_steps=n_steps, return_convergence_delta=True, internal_batch_size=100)
        delta = IntegratedGradients(forward).attribute(text, baseline, **options)[1].item()
        missed[name, n_steps] = abs(delta / difference)
        print(f"{name:8} {n_steps:4} steps: delta {delta:.6f} of {difference:.4f}")
assert missed["zeros", 50] > 1 and missed["zeros", 800] > 1, "the behaviour has changed"
assert missed["token 1", 50] < 1e-3, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/zeros.py"
