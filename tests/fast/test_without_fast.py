"""The core trains, writes and evaluates without `llmcourse.fast`, and does the same."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch

from llmcourse import fast

PROGRAM = """
import json, sys
if {absent}:
    sys.modules["llmcourse.fast"] = None  # to import it is a ModuleNotFoundError
import torch
from llmcourse.decode.beam import beam_search
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.evaluate.likelihood import evaluate_loss
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.seq2seq import generate_target
from llmcourse.training import train

torch.manual_seed(0)
model = GPT(ModelConfig(17, context_length=12, d_model=16, n_layers=2, n_kv_heads=2)).double()
ids = torch.randint(17, (4, 13))
steps = train(model, [(ids[:, :-1], ids[:, 1:])], steps=4, lr=1e-2)
losses = [step.loss for step in steps]
text = generate(model, ids[:2, :3], 14, temperature=0).tolist()
translator = EncoderDecoder(EncoderDecoderConfig(17, context_length=12, d_model=16, n_layers=2)).double()
text += generate_target(translator, ids[:2, :5], 9, start_id=0).tolist()
beams = [beam_search(model, ids[:2, :3], 7, 3), beam_search(translator, ids[:2, :5], 7, 3, start_id=0)]
text += [found.token_ids for rows in beams for row in rows for found in row]
loaded = sorted(name for name in sys.modules if name.startswith("llmcourse.fast."))
print(json.dumps([losses, text, evaluate_loss(model, ids.flatten()), loaded]))
"""


def run(absent: bool):
    program = PROGRAM.format(absent=absent)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def test_without_the_folder_losses_texts_and_evaluation_are_the_same():
    (losses, text, loss, loaded), plain = run(absent=False), run(absent=True)
    modules = ("attention", "cross_decoding", "cross_entropy", "decoding")
    assert [name for name in loaded if name.rsplit(".", 1)[1] in modules] == [
        f"llmcourse.fast.{m}" for m in modules
    ]
    assert plain[3] == []
    assert plain[0] == pytest.approx(losses, rel=1e-6)
    assert losses[-1] < losses[0]
    assert plain[1] == text
    assert plain[2] == pytest.approx(loss, rel=1e-6)


def test_a_switch_is_back_where_it_was_after_an_error():
    assert fast.enabled
    with contextlib.suppress(KeyError), fast.disabled(), fast.disabled():
        assert not fast.enabled
        raise KeyError
    assert fast.enabled


def test_disabled_cross_entropy_can_be_differentiated_twice():
    from llmcourse.fast.cross_entropy import cross_entropy

    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with fast.disabled():
        loss = cross_entropy(logits, torch.tensor([0, 4, -100]))
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    gradient.square().sum().backward()
    assert logits.grad.isfinite().all()
