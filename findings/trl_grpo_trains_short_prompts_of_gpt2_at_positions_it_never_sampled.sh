#!/usr/bin/env bash
# trl 1.16.0, GRPOTrainer with a model of learned positions, such as GPT-2: prompts are padded on the left to the longest
# of the batch. Sampling counts positions from the first real token (transformers' generate does that); the pass that is
# trained hands over no position_ids, so the same tokens are read further right. What a short prompt's answers teach goes
# to log-probabilities that they were not drawn from, and to rows of the table of positions that sampling does not
# use. Nothing is said. Models with rotary positions (Llama, Qwen) are not concerned: only distances count there.
#
# Guess: the prompt "a" and its answer of two tokens are trained at the positions 0 and 1, at which they were sampled.
# Seen:  beside a prompt of seven letters, at the positions 6 and 7; alone in the batch, at 0 and 1
# So: with GPT-2 give prompts of equal length, or batches of one prompt; or take a model with rotary positions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 trl==1.16.0
cat > "$folder/grpo.py" <<'PYTHON'
import sys

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

print("trl", trl.__version__, "transformers", transformers.__version__)
letters = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<pad>", "<end>", *"abcdefgh"])}, unk_token="a"))
letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<end>")


def reward(prompts, completions, **_):
    """Only the answers to the short prompt earn something: those to the long one have no advantage."""
    return [float(i % 2) if prompt == "a" else 0.0 for i, prompt in enumerate(prompts)]


def moved_positions(prompts):
    """Train one step of plain SGD; return the rows of the table of positions that it changed."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=10, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.2)
    sizes |= dict(pad_token_id=0, eos_token_id=1, bos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    before = model.transformer.wpe.weight.detach().clone()
    args = trl.GRPOConfig(
        sys.argv[1], use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, optim="sgd", weight_decay=0.0,
        learning_rate=0.1, max_steps=1, per_device_train_batch_size=16 * len(prompts), num_generations=16,
        max_completion_length=2, shuffle_dataset=False, logging_strategy="no", save_strategy="no",
    )
    rows = Dataset.from_list([{"prompt": prompt} for prompt in prompts])
    trl.GRPOTrainer(model, reward, args=args, train_dataset=rows, processing_class=tokenizer).train()
    return (model.transformer.wpe.weight.detach() != before).any(1).nonzero().flatten().tolist()


alone, beside = moved_positions(["a"]), moved_positions(["a", "bcdefgh"])
print("positions trained by the answers to 'a':", alone, "alone,", beside, "beside a longer prompt")
if alone != [0, 1] or beside != [6, 7]:
    sys.exit("the behaviour has changed")
PYTHON
if ! "$folder/venv/bin/python" -W ignore "$folder/grpo.py" "$folder/out" > "$folder/seen" 2> "$folder/errors"; then
    tail -5 "$folder/errors" "$folder/seen"
    exit 1
fi
grep -E "^(trl|positions)" "$folder/seen"
