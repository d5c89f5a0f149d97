"""The pointer against the sum written out in numpy, closed forms, invariances, and words never written in training."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llmcourse import fast
from llmcourse.config import CHOICES
from llmcourse.data.batches import IGNORE
from llmcourse.data.pairs import PairBatches, pair_batch
from llmcourse.decode.beam import beam_search
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.losses import seq2seq_loss
from llmcourse.optim import muon_and_adamw
from llmcourse.pointer import PointerConfig, PointerGenerator, mix
from llmcourse.pretrained import load_model, save_model
from llmcourse.sampling import next_probabilities
from llmcourse.seq2seq import generate_target, prefill_target
from llmcourse.tokenizer import BPETokenizer
from llmcourse.training import train

V = 13
SOURCE, MASK = torch.tensor([[5, 6, 5, 8], [9, 3, 2, 2]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def randomize(module, seed=0):
    """Give every weight a size at which a mistake shows, in float64."""
    torch.manual_seed(seed)
    for name, parameter in module.double().named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return module.eval()


def small_model(seed=0, **options):
    sizes = dict(vocab_size=V, context_length=12, d_model=16, n_heads=4, n_layers=2, n_encoder_layers=1)
    return randomize(PointerGenerator(PointerConfig(**(sizes | options))), seed)


def ids(B=2, T=7, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def close(one, other, atol=1e-12):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def parts(seed=0, B=2, T=3, S=5, V=V):
    """Random logits, gate, weights and source ids, with ids that occur twice."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    source = torch.randint(V, (B, S), generator=generator)
    source[:, -1] = source[:, 0]
    return 3 * draw(B, T, V), 2 * draw(B, T, 1), (2 * draw(B, T, S)).softmax(-1), source


# --- the mixture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_mixture_is_the_sum_written_out(seed):
    logits, gate, weights, source = parts(seed)
    expected = np.zeros(logits.shape)
    for b, t in np.ndindex(*logits.shape[:2]):
        e = np.exp(logits[b, t].numpy())
        p_gen = 1 / (1 + math.exp(-gate[b, t]))
        expected[b, t] = p_gen * e / e.sum()
        for i, token in enumerate(source[b].tolist()):
            expected[b, t, token] += (1 - p_gen) * weights[b, t, i].item()
    found = mix(logits, gate, weights, source).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_positions_with_the_same_token_may_be_exchanged():
    logits, gate, weights, source = parts()
    order = torch.tensor([3, 1, 4, 0, 2])
    close(mix(logits, gate, weights[..., order], source[:, order]), mix(logits, gate, weights, source))
    swapped = weights[..., [4, 1, 2, 3, 0]]  # the first and the last are one token
    close(mix(logits, gate, swapped, source), mix(logits, gate, weights, source))


def test_a_gate_that_is_sure_leaves_one_of_both():
    logits, gate, weights, source = parts()
    close(mix(logits, gate + 1000, weights, source), logits.log_softmax(-1))
    copied = mix(logits, gate - 1000, weights, source).exp()
    close(copied.sum(-1), torch.ones(2, 3).double())
    assert (copied.gather(-1, source[:, None].expand(2, 3, 5)) > 0).all()
    assert ((copied > 1e-9).sum(-1) <= 4).all()  # five positions, two of them with one token


def test_the_gradient_is_that_of_finite_differences():
    logits, gate, weights, source = parts(V=6)
    scores = weights.log()
    inputs = [part.clone().requires_grad_() for part in (logits, gate, scores)]
    assert torch.autograd.gradcheck(
        lambda x, g, s: mix(x, g, s.softmax(-1), source), inputs, eps=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gate", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("logit", [0.0, 1e4])
@pytest.mark.parametrize("score", [0.0, 1e4])
def test_value_and_gradient_stay_finite_where_probabilities_are_0(dtype, gate, logit, score):
    """A sure gate, a sure vocabulary and a sure pointer: the naive logarithm of the sum is -inf, or its gradient NaN."""
    source = torch.tensor([[1, 2, 3]])
    logits, scores = torch.zeros(1, 4, 6, dtype=dtype), torch.zeros(1, 4, 3, dtype=dtype)
    logits[..., 0], scores[..., 0] = logit, score
    inputs = [x.requires_grad_() for x in (logits, torch.full((1, 4, 1), gate, dtype=dtype), scores)]
    log_p = mix(inputs[0], inputs[1], inputs[2].softmax(-1), source)
    assert log_p.isfinite().all()
    for token in range(6):
        for gradient in torch.autograd.grad(log_p[..., token].sum(), inputs, retain_graph=True):
            assert gradient.isfinite().all()


# --- the model -----------------------------------------------------------------------------------


def test_without_copying_it_is_the_encoder_decoder():
    sizes = dict(context_length=12, d_model=16, n_layers=2)
    models = {}
    for copy in (True, False):
        torch.manual_seed(3)
        models[copy] = PointerGenerator(PointerConfig(V, **sizes, copy=copy))
    torch.manual_seed(3)
    plain = EncoderDecoder(EncoderDecoderConfig(V, **sizes))
    state = plain.state_dict()
    assert list(models[False].state_dict()) == list(state)
    for model in models.values():  # from one seed, all but the pointer is drawn alike
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    source, target = SOURCE, ids()
    assert torch.equal(models[False](source, target, MASK), plain(source, target, MASK))
    assert not torch.allclose(models[True](source, target, MASK), plain(source, target, MASK))
    nn.init.constant_(models[True].pointer.gate.bias, 1e4)
    close(models[True](source, target, MASK), plain(source, target, MASK).log_softmax(-1), 1e-6)


@pytest.mark.parametrize("padded", [True, False])
def test_the_model_puts_out_the_mixture_of_what_copying_tells(padded):
    model, target, mask = small_model(), ids(), MASK if padded else None
    weights, p_gen = model.copying(SOURCE, target, mask)
    plain = EncoderDecoder(
        EncoderDecoderConfig(V, context_length=12, d_model=16, n_layers=2, n_encoder_layers=1)
    )
    plain.double().load_state_dict({n: x for n, x in model.state_dict().items() if "pointer" not in n})
    expected = p_gen[..., None] * plain(SOURCE, target, mask).softmax(-1)
    for b, i in itertools.product(range(2), range(4)):
        expected[b, :, SOURCE[b, i]] += (1 - p_gen[b]) * weights[b, :, i]
    found = model(SOURCE, target, mask).exp()
    close(found, expected)
    close(found.sum(-1), torch.ones(2, 7).double())
    close(weights.sum(-1), torch.ones(2, 7).double())
    assert (weights[1, :, 2:] == 0).all() == padded
    assert [m.shape for m in model.cross_attention_maps(SOURCE, target)] == [(2, 4, 7, 4)] * 2


def test_where_it_copies_from_are_torchs_weights_of_one_head():
    model, target = small_model(), ids()
    theirs = nn.MultiheadAttention(16, 1, bias=False, batch_first=True, dtype=torch.float64)
    query, key = model.pointer.query.weight, model.pointer.key.weight
    theirs.load_state_dict({"in_proj_weight": torch.cat([query, key, key])}, strict=False)
    memory = model.encode(SOURCE, MASK)
    states = model.decoder_states(target, memory), memory.states, memory.states
    close(
        model.copying(SOURCE, target, MASK).weights, theirs(*states, key_padding_mask=MASK == 0)[1].detach()
    )


def test_dropout_is_off_while_one_looks_and_on_again_after():
    model = small_model(dropout=0.5).train()
    one, other = (model.copying(SOURCE, ids()) for _ in range(2))
    assert torch.equal(one.weights, other.weights)
    assert model.training


def test_padding_is_not_copied_and_changes_nothing():
    model, target = small_model(), ids()
    padded = torch.cat([SOURCE, torch.full((2, 3), 4)], dim=1)
    mask = (torch.arange(7) < 4).expand(2, 7)
    with torch.no_grad():
        close(model(padded, target, mask), model(SOURCE, target))
    for long, short in zip(model.copying(padded, target, mask), model.copying(SOURCE, target), strict=True):
        close(long[..., : short.shape[-1]], short)


def test_without_positions_the_order_of_the_source_does_not_matter():
    model, order = small_model(positions="none"), torch.tensor([2, 3, 1, 0])
    with torch.no_grad():
        close(model(SOURCE[:, order], ids()), model(SOURCE, ids()))


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_caches_and_several_targets_of_a_source_give_the_same(positions):
    model, targets = small_model(positions=positions), ids(B=6)  # three of each source
    with torch.no_grad():
        memory, caches = model.encode(SOURCE, MASK), model.make_caches(6)
        whole = model.decode(targets, memory)
        pieces = [model.decode(part, memory, caches) for part in targets.split([1, 3, 1, 2], dim=1)]
        close(torch.cat(pieces, dim=1), whole)
        close(model(SOURCE.repeat_interleave(3, 0), targets, MASK.repeat_interleave(3, 0)), whole)


def test_a_model_comes_back_from_its_folder(tmp_path):
    model = small_model(vocab_size=259).float()
    save_model(tmp_path, model, BPETokenizer.from_merges([]), torch.float32)
    other, _ = load_model(tmp_path, PointerGenerator)
    assert other.config == model.config
    assert torch.equal(other(SOURCE, ids()), model(SOURCE, ids()))
    with pytest.raises(ValueError, match=r"\['copy'\] are no fields of EncoderDecoderConfig"):
        load_model(tmp_path, EncoderDecoder)


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(ValueError, match="source_vocab_size=9: a token can be copied only where"):
        PointerConfig(V, source_vocab_size=9)
    config = PointerConfig(V, source_vocab_size=9, d_model=16, n_layers=1, copy=False)
    with pytest.raises(ValueError, match="copy=False: this model has no pointer"):
        PointerGenerator(config).copying(SOURCE, ids())
    with pytest.raises(ValueError, match="a PointerGenerator is built from a PointerConfig"):
        PointerGenerator(EncoderDecoderConfig(V))
    assert replace(config, source_vocab_size=None, copy=True).copy


# --- the loss ------------------------------------------------------------------------------------


def test_the_loss_of_any_encoder_decoder_is_minus_the_log_probability_of_what_is_written():
    model, batch = small_model(), pair_batch([[5, 6], [7]], [[8], [9, 3]], start_id=0, end_id=1)
    source, mask, inputs, targets = batch
    total, count = seq2seq_loss(model, batch)
    log_p = model(source, inputs, mask)
    counts = targets != IGNORE
    assert count == 5
    close(total, -log_p.gather(-1, targets.where(counts, 0)[..., None])[..., 0][counts].sum())
    wanted = torch.autograd.grad(-log_p[counts, targets[counts]].sum(), list(model.parameters()))
    for one, other in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        close(one, other, 1e-10)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_greedy_is_the_argmax_of_the_whole_model_again_and_again(quick):
    model, written = small_model(), torch.zeros(2, 1, dtype=torch.long)
    for _ in range(8):
        written = torch.cat([written, model(SOURCE, written, MASK)[:, -1:].argmax(-1)], dim=1)
    with fast.disabled() if not quick else torch.no_grad():
        assert torch.equal(generate_target(model, SOURCE, 8, 0, source_mask=MASK), written[:, 1:])
        log_p, _ = prefill_target(model, SOURCE, 0, MASK)
    close(log_p, model(SOURCE, written[:, :1], MASK)[:, 0])


def test_sampling_and_a_process_take_log_probabilities_as_logits():
    log_p, _ = prefill_target(small_model(), SOURCE, 0, MASK)
    close(next_probabilities(log_p), log_p.exp())
    seen = []

    def only_three(token_ids, log_probabilities):
        seen.append(log_probabilities.exp().sum(-1))
        return log_probabilities.masked_fill(torch.arange(V) != 3, float("-inf"))

    written = generate_target(small_model(), SOURCE, 2, 0, process=only_three, temperature=1.0, seed=0)
    assert written.tolist() == [[3, 3], [3, 3]]
    close(torch.stack(seen), torch.ones(2, 2).double())


@pytest.mark.parametrize("quick", [True, False])
def test_a_beam_that_is_wide_enough_finds_the_likeliest_of_all(quick):
    """Of all sequences of three tokens, or fewer that end; the sources end at different steps."""
    stop, model = 1, small_model(vocab_size=10)
    with fast.disabled() if not quick else torch.no_grad():
        found = beam_search(
            model, SOURCE, 3, 100, stop, 0, MASK, length_penalty=0.0, early_stopping="never", n_best=4
        )
    sequences = [s for n in (1, 2, 3) for s in itertools.product(range(10), repeat=n)]
    ended = [s for s in sequences if stop not in s[:-1] and (s[-1] == stop or len(s) == 3)]
    rows = torch.tensor([[0, *s, *[stop] * (3 - len(s))] for s in ended])
    for source, mask, hypotheses in zip(SOURCE, MASK, found, strict=True):
        with torch.no_grad():
            log_p = model.decode(rows[:, :-1], model.encode(source[None], mask[None]))
        each = log_p.gather(-1, rows[:, 1:, None])[..., 0]
        sums = torch.tensor([row[: len(s)].sum() for row, s in zip(each, ended, strict=True)])
        best = sums.topk(4)
        assert [tuple(h.token_ids) for h in hypotheses] == [ended[i] for i in best.indices]
        assert [h.log_probability for h in hypotheses] == pytest.approx(best.values.tolist(), abs=1e-5)


# --- what it is for ------------------------------------------------------------------------------

START, END, HELLO, MARK = range(4)
OTHERS, SEEN, NEW = range(4, 14), range(14, 34), range(34, 54)


def greetings(names, n, seed):
    """Rows with a name somewhere behind a mark, and what is to be written: hello, and the name."""
    generator, pairs = torch.Generator().manual_seed(seed), []
    draw = lambda things: things[int(torch.randint(len(things), (1,), generator=generator))]  # noqa: E731
    for _ in range(n):
        row, name = [draw(OTHERS) for _ in range(draw(range(3, 7)))], draw(names)
        at = draw(range(len(row) + 1))
        pairs.append(([*row[:at], MARK, name, *row[at:]], [HELLO, name]))
    return pairs


@pytest.mark.parametrize("copy", [True, False])
def test_it_writes_names_that_it_never_wrote_in_training_and_a_plain_model_does_not(copy):
    torch.manual_seed(0)
    sizes = dict(context_length=12, d_model=32, n_heads=2, n_layers=1, d_ff=64)
    model = PointerGenerator(PointerConfig(54, copy=copy, **sizes))
    batches = PairBatches(greetings(SEEN, 2000, 0), START, END, batch_size=32)
    for _ in train(model, batches, steps=300, lr=5e-3, loss=seq2seq_loss):
        pass

    def right(names):
        sources, wanted = zip(*greetings(names, 100, 9), strict=True)
        written = generate_target(model, list(sources), 4, START, END).tolist()
        return sum(row[:3] == [*target, END] for row, target in zip(written, wanted, strict=True))

    assert right(SEEN) > (95 if copy else 75)
    assert right(NEW) > 90 if copy else right(NEW) == 0
    if copy:  # hello and the end from the vocabulary, the name from where it stands
        weights, p_gen = model.copying(
            torch.tensor([[4, 5, MARK, 40, 6]]), torch.tensor([[START, HELLO, 40]])
        )
        assert (p_gen[0] > 0.5).tolist() == [True, False, True]
        assert weights[0, 1].argmax() == 3


def test_muon_trains_it_too():
    batches = PairBatches(greetings(range(4, 8), 20, 0), 0, 1, batch_size=20)
    model = PointerGenerator(PointerConfig(14, context_length=12, d_model=16, n_layers=1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = [
        step.loss
        for step in train(model, batches, steps=20, loss=seq2seq_loss, optimizer=muon_and_adamw(model))
    ]
    assert losses[-1] < losses[0]
    assert all(
        not torch.equal(before[name], x) for name, x in model.state_dict().items() if "pointer" in name
    )
