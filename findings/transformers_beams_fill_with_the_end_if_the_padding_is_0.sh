#!/usr/bin/env bash
# transformers 5.23.0: generate(num_beams=2) fills short rows with pad_token_id, but with the end token if
# pad_token_id is 0 (`pad_token_id or eos_token_id` takes 0 for none). Greedy decoding fills with 0. T5, Pegasus
# and many models made by hand have the padding 0: what is behind the first end token is then not padding, so
# a mask `ids != pad_token_id` counts it, and lengths, mean log-probabilities and losses made of it are wrong.
#
# Guess: rows are filled with pad_token_id, whichever it is.
# Seen:  padding 2: [0, 1, 2]; padding 0: [0, 1, 1], both of the row that ends at once.
# Beside: with more beams than there are sequences, the rest are copies with a score of about -1e9: here 4 beams
#        of one new token from a vocabulary of 3.
# So: cut each row behind its first end token, and drop sequences with scores below -1e8.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 torch==2.13.0
cat > "$folder/beams.py" <<'PYTHON'
import torch
import transformers
from transformers import MarianConfig, MarianMTModel

END = 1


def model_of(vocab_size, pad):
    """Return a model whose logits are the same after anything: the end is the likeliest, then token 0."""
    sizes = dict(d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
    sizes |= dict(encoder_attention_heads=1, decoder_attention_heads=1, max_position_embeddings=8)
    special = dict(pad_token_id=pad, eos_token_id=END, decoder_start_token_id=0, forced_eos_token_id=None)
    model = MarianMTModel(MarianConfig(vocab_size=vocab_size, **sizes, **special)).eval()
    torch.nn.init.zeros_(model.model.shared.weight)
    model.final_logits_bias[0, :] = torch.tensor([1.0, 2.0] + [0.0] * (vocab_size - 2))
    return model


source, mask, seen = torch.tensor([[2, 2]]), torch.ones(1, 2, dtype=torch.long), []
for pad in (2, 0):
    options = dict(num_beams=2, num_return_sequences=2, do_sample=False, max_new_tokens=3)
    rows = model_of(4, pad).generate(source, attention_mask=mask, **options).tolist()
    seen.append(rows[0])
    print(f"padding {pad}: {rows}")
options = dict(num_beams=4, num_return_sequences=4, do_sample=False, max_new_tokens=1)
options |= dict(return_dict_in_generate=True, output_scores=True)
found = model_of(3, 2).generate(source, attention_mask=mask, **options)
print(found.sequences.tolist(), found.sequences_scores.tolist())
print("transformers", transformers.__version__, "torch", torch.__version__)
assert [row[:3] for row in seen] == [[0, END, 2], [0, END, END]], "the behaviour has changed"
assert found.sequences_scores[3] < -1e8, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/beams.py" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
