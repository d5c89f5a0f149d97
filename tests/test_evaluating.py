"""Functions that read a model switch dropout off, and leave each part of it in the mode it was in."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from llmcourse.evaluate.likelihood import evaluate_loss, multiple_choice, token_losses
from llmcourse.finetune.classify import GPTClassifier, accuracy, encoder_features, gpt_features
from llmcourse.finetune.sft import exact_match
from llmcourse.generate import generate, generate_tokens, prefill
from llmcourse.monitor.run_record import copied_share, future_change
from llmcourse.runtime import evaluating
from llmcourse.teach.chapters.ch01_background.entropy import neural_predictor
from llmcourse.tune.initialization import activation_and_gradient_norms
from llmcourse.tune.noise_scale import measure_noise_scale
from llmcourse.tune.techniques import make_config, make_model

V = 17
IDS = torch.randint(V, (3, 12), generator=torch.Generator().manual_seed(0))
ROWS = IDS.tolist()
CHATS = [(row, [False] + [True] * 11) for row in ROWS]


def tokenizer(texts, **options):
    return {"input_ids": ROWS[: len(texts)]}


tokenizer.pad_token_id = 0


def decoded(model):
    logits, step = prefill(model, IDS)
    return torch.stack([logits, step(IDS[:, 0]), step(IDS[:, 1])])


READERS: dict[str, Callable] = {  # each gives numbers that dropout would change
    "attention_maps": lambda model: torch.stack(model.attention_maps(IDS)),
    "evaluate_loss": lambda model: evaluate_loss(model, IDS.flatten()),
    "token_losses": lambda model: token_losses(model, IDS.flatten(), stride=3),
    "multiple_choice": lambda model: multiple_choice(model, ROWS[:1], [ROWS[1:]])[0],
    "gpt_features": lambda model: gpt_features(model, ROWS),
    "exact_match": lambda model: exact_match(model, CHATS * 20, pad_id=0),
    "future_change": lambda model: future_change(model, IDS),
    "copied_share": lambda model: copied_share(model, IDS.repeat(20, 1)),
    "neural_predictor": lambda model: neural_predictor(model)(ROWS),
    "activation_and_gradient_norms": lambda model: activation_and_gradient_norms(model, (IDS, IDS)),
    "prefill": decoded,
    "generate": lambda model: generate(model, IDS, 8, seed=0),
    "generate without a cache": lambda model: generate(model, IDS, 8, temperature=0, use_cache=False),
}
TECHNIQUES = [{}, dict(token_shift=True, embedding_shift=1)]  # the second is decoded the long way


def in_training(techniques=None, seed=0):
    """A model with dropout that is in training, all but one frozen block."""
    torch.manual_seed(seed)
    config = make_config(V, context_length=24, d_model=16, n_layers=3, dropout=0.5, **(techniques or {}))
    model = make_model(config).train()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    model.blocks[1].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("techniques", TECHNIQUES, ids=str)
@pytest.mark.parametrize("reader", READERS)
def test_a_model_in_training_is_read_as_in_evaluation_and_goes_on_as_before(reader, techniques):
    model, read = in_training(techniques), READERS[reader]
    before, state = modes(model), torch.get_rng_state()
    found = [torch.as_tensor(read(model)) for _ in range(2)]
    assert modes(model) == before
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn from the run's own numbers
    expected = torch.as_tensor(read(model.eval()))
    for one in found:
        assert torch.equal(one, expected)


def test_encoders_and_classifiers_are_read_alike():
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(vocab_size=V, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
                                   intermediate_size=8, hidden_dropout_prob=0.5)).train()  # fmt: skip
    classifier = GPTClassifier(in_training()).train()
    nn.init.normal_(classifier.head.weight)
    for model, read in (
        (encoder, lambda model: encoder_features(model, tokenizer, ["a", "b"])),
        (classifier, lambda model: accuracy(model, ROWS * 40, [0, 1, 1] * 40)),
    ):
        before, found = modes(model), [torch.as_tensor(read(model)) for _ in range(2)]
        assert modes(model) == before
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], torch.as_tensor(read(model.eval())))


@pytest.mark.parametrize("reader", READERS)
def test_an_error_inside_changes_no_mode(reader):
    model = in_training()
    before = modes(model)

    def fail(*_):
        raise RuntimeError("out of memory")

    model.blocks[2].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        READERS[reader](model)
    assert modes(model) == before


def test_a_stream_that_is_left_changes_no_mode():
    model = in_training()
    before, tokens = modes(model), generate_tokens(model, IDS, 8, seed=0)
    next(tokens)
    tokens.close()
    assert modes(model) == before


def test_evaluating_gives_the_model_and_nests():
    model = in_training()
    before = modes(model)
    with evaluating(model) as same, evaluating(model):
        assert same is model
        assert not any(modes(model))
    assert modes(model) == before


# --- where float64 does not exist --------------------------------------------------------------


class OnMps(torch.Tensor):
    """A stand-in for a tensor on Apple's GPU, which has no float64; `.cpu()` brings it home."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, OnMps) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


class MpsModel(nn.Module):
    """Logits on a device without float64."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(V))
        self.config = SimpleNamespace(vocab_size=V, context_length=24)

    def forward(self, ids):
        return (nn.functional.one_hot(ids, V) * self.weight).as_subclass(OnMps)


@pytest.mark.parametrize("name", ["length", "counts", "copied_share", "neural_predictor", "token_losses",
                                  "multiple_choice", "noise_scale"])  # fmt: skip
def test_float64_is_asked_for_on_the_cpu_only(name, monkeypatch):
    from llmcourse.monitor import run_record as probes

    wanted = {
        "length": lambda: probes.length([torch.tensor([3.0, 4.0]).as_subclass(OnMps)]) == 5.0,
        "counts": lambda: probes.counts(IDS.as_subclass(OnMps), V).sum() == IDS.numel() + V / 2,
        "copied_share": lambda: copied_share(MpsModel(), IDS) == 1.0,
        "neural_predictor": lambda: (
            neural_predictor(MpsModel())(ROWS).argmax(-1).tolist() == IDS[:, -1].tolist()
        ),
        "token_losses": lambda: evaluate_loss(MpsModel(), IDS.flatten()) > 0,
        "multiple_choice": lambda: (multiple_choice(MpsModel(), ROWS[:1], [ROWS[1:]])[0] < 0).all(),
        "noise_scale": lambda: (
            measure_noise_scale(
                MpsModel(),
                [IDS[:2]],
                small=1,
                loss=lambda model, ids: ((model.weight * ids[0][0, 0]).sum(), 1),
            ).noise_trace
            > 0
        ),
    }
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: [g.as_subclass(OnMps) for g in grad(*a, **k)])
    assert wanted[name]()


CHOOSERS = {
    "generate, greedy": lambda model: generate(model, IDS, 4, temperature=0),
    "generate, sampled": lambda model: generate(model, IDS, 4, seed=0, top_p=0.9),
    "generate without a cache": lambda model: generate(model, IDS, 4, temperature=0, use_cache=False),
    "multiple_choice": lambda model: multiple_choice(model, ROWS[:1], [ROWS[1:]]),
    "exact_match": lambda model: exact_match(model, CHATS, pad_id=0),
    "accuracy": lambda model: accuracy(GPTClassifier(model), ROWS, [0, 1, 0]),
}


@pytest.mark.parametrize("name", CHOOSERS)
def test_nothing_is_chosen_from_nan(name):
    """torch.argmax takes NaN for the largest: a diverged model would choose 0, and be right at times."""
    model = in_training()
    torch.nn.init.constant_(model.final_norm.weight, float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        CHOOSERS[name](model)
