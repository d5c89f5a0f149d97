"""Beam search against transformers' generate, brute force over all sequences, and greedy decoding."""

import itertools
import math

import pytest
import torch
import transformers as hf
from torch import nn

from llmcourse import fast
from llmcourse.convert import to_transformers
from llmcourse.convert_seq2seq import seq2seq_to_transformers
from llmcourse.decode.beam import beam_search
from llmcourse.decode.readers import Reader, SourceReader
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
from llmcourse.seq2seq import generate_target

V, START, STOP = 23, 0, 1


def randomize(model, seed=0, std=0.3):
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=std)
    return model.eval()


def translator(seed=0, vocab=V, stop=0.0, **options):
    """Return a random model, `stop` more inclined to end than to write any other token."""
    config = EncoderDecoderConfig.marian(vocab, d_model=16, n_layers=2, context_length=12, **options)
    model = randomize(EncoderDecoder(config), seed)
    with torch.no_grad():
        model.unembedding.bias.zero_()[STOP] = stop
    return model


def writer(seed=0, vocab=V, **options):
    return randomize(
        GPT(ModelConfig.gpt2(vocab, d_model=16, n_layers=2, context_length=16, **options)), seed, 0.5
    )


SOURCE = torch.tensor([[5, 6, 7, 8], [9, 3, 2, 2], [11, 12, 13, 14]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


def theirs(model, ids, n_beams, begun, **options):
    """Return (tokens, score) of all beams of transformers' generate, without prompt and filling."""
    found = model.generate(
        ids, num_beams=n_beams, num_return_sequences=n_beams, do_sample=False, max_new_tokens=8,
        return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    rows = [row[begun:] for row in found.sequences.tolist()]
    rows = [row[: row.index(STOP) + 1] if STOP in row else row for row in rows]
    return list(zip(rows, found.sequences_scores.tolist(), strict=True))


def assert_same(ours, expected):
    flat = [hypothesis for several in ours for hypothesis in several]
    for hypothesis, (tokens, score) in zip(flat, expected, strict=True):
        assert hypothesis.token_ids == tokens
        assert hypothesis.score == pytest.approx(score, abs=2e-4)


# --- transformers --------------------------------------------------------------------------------

OPTIONS = list(itertools.product((2, 4), (1.0, 0.0, 0.6, 2.0, -1.0), (False, True, "never")))


MODELS = [
    ("post", 4, 2.0),
    ("post", 0, 4.0),
    ("post", 3, 0.0),
    ("pre", 0, 2.0),
    ("pre", 3, 2.0),
    ("pre", 2, 3.0),
]


@pytest.mark.parametrize(("norm_position", "seed", "stop"), MODELS)
def test_targets_and_scores_are_those_of_transformers(norm_position, seed, stop):
    model, least = translator(seed, stop=stop, norm_position=norm_position), seed % 3
    reference, lengths = seq2seq_to_transformers(model, START, STOP), set()
    for n_beams, alpha, early_stopping in OPTIONS:
        shared = dict(length_penalty=alpha, early_stopping=early_stopping, min_new_tokens=least)
        expected = theirs(reference, SOURCE, n_beams, 1, attention_mask=MASK, **shared)
        options = shared | dict(start_id=START, stop_id=STOP, source_mask=MASK, n_best=n_beams)
        assert_same(beam_search(model, SOURCE, 8, n_beams, **options), expected)
        lengths |= {len(tokens) for tokens, _ in expected}
    assert len(lengths) > 3  # some end early, some late


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_continuations_and_scores_are_those_of_transformers(seed):
    model = writer(seed)
    prompts, reference = torch.tensor([[5, 6, 7], [8, 9, 2]]), to_transformers(model)
    for n_beams, alpha, early_stopping in OPTIONS:
        shared = dict(length_penalty=alpha, early_stopping=early_stopping)
        more = dict(attention_mask=torch.ones_like(prompts), eos_token_id=STOP, pad_token_id=2)
        expected = theirs(reference, prompts, n_beams, 3, **shared, **more)
        found = beam_search(model, prompts, 8, n_beams, stop_id=STOP, n_best=n_beams, **shared)
        assert_same(found, expected)


def test_a_penalty_changes_log_probabilities_as_in_transformers():
    model, prompts = writer(3), torch.tensor([[5, 6, 7], [8, 9, 2]])
    penalty = hf.RepetitionPenaltyLogitsProcessor(1.7)
    options = dict(attention_mask=torch.ones_like(prompts), eos_token_id=STOP, pad_token_id=2)
    expected = theirs(to_transformers(model), prompts, 3, 3, repetition_penalty=1.7, **options)
    assert_same(beam_search(model, prompts, 8, 3, stop_id=STOP, n_best=3, process=penalty), expected)


# --- brute force ---------------------------------------------------------------------------------


def log_probability(model, source, tokens):
    with torch.no_grad():
        if source is None:
            log_p = model(torch.tensor([[3, *tokens]])).log_softmax(-1)[0]
        else:
            log_p = model(source, torch.tensor([[START, *tokens]])).log_softmax(-1)[0]
    return log_p[range(len(tokens)), tokens].sum().item()


def all_sequences(vocab, longest):
    """Yield every sequence that ends with STOP, or is as long as may be."""
    others = [token for token in range(vocab) if token != STOP]
    for length in range(longest):
        for start in itertools.product(others, repeat=length):
            yield [*start, STOP]
    yield from (list(tokens) for tokens in itertools.product(others, repeat=longest))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("kind", ["source", "prompt"])
def test_with_enough_beams_it_finds_the_best_of_all_sequences(kind, alpha):
    vocab, longest = 4, 4
    source = torch.tensor([[2, 3]]) if kind == "source" else None
    model = (translator(4, vocab) if kind == "source" else writer(4, vocab)).double()
    every = sorted(
        (
            (log_probability(model, source, tokens) / len(tokens) ** alpha, tokens)
            for tokens in all_sequences(vocab, longest)
        ),
        reverse=True,
    )
    start = dict(start_id=START) if kind == "source" else {}
    found = beam_search(
        model, [[3]] if source is None else source, longest, 200, stop_id=STOP, length_penalty=alpha, n_best=121,
        early_stopping="never", **start,
    )[0]  # fmt: skip
    assert len(every) == len(found) == 121  # 1 + 3 + 9 + 27 that end, and 81 as long as may be
    for hypothesis, (score, tokens) in zip(found, every, strict=True):
        assert hypothesis.token_ids == tokens
        assert hypothesis.score == pytest.approx(score, abs=1e-9)
        assert hypothesis.log_probability == pytest.approx(score * len(tokens) ** alpha, abs=1e-9)
    assert math.fsum(math.exp(h.log_probability) for h in found) == pytest.approx(1.0)


def test_more_beams_find_what_fewer_missed():
    """A first token that is less likely, with a certain one behind it, wins as soon as it is kept."""
    table = torch.tensor([[-9, -9, 0.6, 0.4, -9], [-9] * 5, [-9, 0, 0, 0, 0], [-9, 9, -9, -9, -9], [0] * 5])
    model = writer(vocab=5)
    model.forward = lambda ids, caches=None: table[ids].double()
    model.make_caches = lambda n: [type("Cache", (), dict(k=torch.zeros(n), v=torch.zeros(n), length=0))()]
    options = dict(max_new_tokens=2, stop_id=STOP, length_penalty=0.0)
    reader = "llmcourse.decode.readers.reordered"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, _picked)
        assert beam_search(model, [0], n_beams=1, **options)[0][0].token_ids[0] == 2
        assert beam_search(model, [0], n_beams=2, **options)[0][0].token_ids == [3, STOP]


def _picked(cache, rows):
    cache.k = cache.v = torch.zeros(len(rows))
    return cache


def test_there_are_no_more_hypotheses_than_sequences():
    """transformers returns copies with a score of -1e9 in the place of those that are missing."""
    [found] = beam_search(translator(4, vocab=4), [2, 3], 1, 6, STOP, START, n_best=6)
    assert sorted(hypothesis.token_ids for hypothesis in found) == [[0], [1], [2], [3]]
    assert math.fsum(math.exp(hypothesis.log_probability) for hypothesis in found) == pytest.approx(
        1.0, abs=1e-5
    )


# --- the empty translation -----------------------------------------------------------------------


def test_many_beams_and_no_penalty_find_the_empty_target():
    """A few beams leave the end at once for a likelier token, and so miss what is likelier as a whole."""
    model, wanted = translator(2, stop=1.0, norm_position="pre"), [[STOP]] * 3
    options = dict(stop_id=STOP, start_id=START, source_mask=MASK)
    found = {}
    for n_beams, alpha in ((1, 0.0), (16, 0.0), (16, 1.0)):
        several = beam_search(model, SOURCE, 8, n_beams, length_penalty=alpha, **options)
        found[n_beams, alpha] = [hypothesis for [hypothesis] in several]
    assert [h.token_ids for h in found[16, 0.0]] == wanted
    for one, many, mean in zip(found[1, 0.0], found[16, 0.0], found[16, 1.0], strict=True):
        assert len(one.token_ids) == len(mean.token_ids) == 8
        assert many.log_probability > one.log_probability
    for least in (1, 3):
        several = beam_search(model, SOURCE, 8, 16, length_penalty=0.0, min_new_tokens=least, **options)
        assert all(STOP not in hypothesis.token_ids[:least] for [hypothesis] in several)


# --- invariances ---------------------------------------------------------------------------------


def test_one_beam_is_greedy():
    model, gpt = translator(1, stop=1.0), writer(1)
    greedy = generate_target(model, SOURCE, 8, START, STOP, source_mask=MASK)
    found = beam_search(model, SOURCE, 8, 1, STOP, START, MASK)
    for row, [hypothesis] in zip(greedy.tolist(), found, strict=True):
        assert hypothesis.token_ids == row[: len(hypothesis.token_ids)]
        assert STOP in hypothesis.token_ids or len(hypothesis.token_ids) == 8
    prompts = torch.tensor([[5, 6], [7, 8]])
    expected = generate(gpt, prompts, 9, temperature=0)[:, 2:].tolist()
    assert [h.token_ids for [h] in beam_search(gpt, prompts, 9, 1)] == expected


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "learned", "none"])
@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_together_is_as_alone_and_fast_is_as_slow(positions, n_kv_heads):
    options, lengths = dict(n_beams=3, n_best=3, stop_id=STOP, start_id=START), set()
    rows = [row[mask.bool()].tolist() for row, mask in zip(SOURCE, MASK, strict=True)]
    for seed, stop in itertools.product((0, 1, 4), (2.0, 4.0)):
        model = translator(seed, stop=stop, positions=positions, n_kv_heads=n_kv_heads, norm_position="pre")
        model = model.double()
        together = beam_search(model, SOURCE, 9, source_mask=MASK, **options)
        with fast.disabled():
            slow = beam_search(model, SOURCE, 9, source_mask=MASK, **options)
        alone = [beam_search(model, row, 9, **options)[0] for row in rows]
        for others in (slow, alone, beam_search(model, rows, 9, **options)):
            for one, other in zip(together, others, strict=True):
                assert [h.token_ids for h in one] == [h.token_ids for h in other]
                assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-9)
        lengths |= {len(hypothesis.token_ids) for found in together for hypothesis in found}
    assert len(lengths) > 3  # so sources close at different steps


@pytest.mark.parametrize("kind", ["prompt", "source", "source, the plain way"])
def test_reordered_rows_go_on_as_if_they_had_been_read_so(kind):
    torch.manual_seed(0)
    model = (writer() if kind == "prompt" else translator()).double()
    ids, orders = (
        torch.randint(V, (3, 8)),
        [[0, 0, 1, 1, 2, 2], [1, 0, 3, 3, 4, 5], [3, 2, 5, 4], [1, 1, 0, 2, 3, 3]],
    )
    with fast.disabled() if "plain" in kind else torch.no_grad(), torch.no_grad():
        memory = None if kind == "prompt" else model.encode(SOURCE, MASK)
        reader = Reader(model, 3) if memory is None else SourceReader(model, memory)
        rows, sources = ids[:, :1], [0, 1, 2]
        found = reader.read(rows)
        for order in [None, *orders]:
            if order is not None:
                reader.reorder(order)
                new = torch.randint(V, (len(order), 1))
                rows, sources = torch.cat([rows[order], new], dim=1), [sources[i] for i in order]
                found = reader.read(new)
            expected = model(rows) if memory is None else model(SOURCE[sources], rows, MASK[sources])
            torch.testing.assert_close(found, expected[:, -1], rtol=0, atol=1e-10)


def test_the_mode_of_the_model_stays_and_dropout_is_off():
    model = translator(dropout=0.5).train()
    one, other = (beam_search(model, SOURCE, 6, 3, STOP, START) for _ in range(2))
    assert one == other
    assert model.training


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(n_beams=0), "n_beams=0 must be a whole number and at least 1"),
        (dict(n_beams=2, n_best=3), "n_best=3, of n_beams=2"),
        (dict(max_new_tokens=0), "max_new_tokens=0"),
        (dict(max_new_tokens=13), "1 tokens and max_new_tokens=13 do not fit into the context of 12"),
        (dict(min_new_tokens=-1), "min_new_tokens=-1"),
        (dict(length_penalty=float("nan")), "length_penalty is nan"),
        (dict(early_stopping="always"), "early_stopping='always' is unknown"),
        (dict(early_stopping=1), "early_stopping=1 is unknown"),
        (dict(stop_id=V), r"stop_id\[0\] is 23"),
        (dict(start_id=None), "start_id is missing"),
        (dict(token_ids=[[5], []]), "source 1 has the shape"),
        (dict(source_mask=torch.zeros(3, 4).long()), "row 0 of the source has no token"),
        (dict(process=lambda ids, log_p: log_p - torch.inf), "process leaves no token"),
    ],
)
def test_options_that_mean_nothing_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        beam_search(translator(), **(dict(token_ids=SOURCE, max_new_tokens=6, start_id=START) | options))


def test_a_gpt_has_no_source_and_a_broken_model_is_told():
    with pytest.raises(ValueError, match="start_id and source_mask belong to an EncoderDecoder"):
        beam_search(writer(), [5], 3, start_id=0)
    with pytest.raises(ValueError, match="2 tokens and max_new_tokens=16 do not fit into the context of 16"):
        beam_search(writer(), [5, 6], 16)
    model = writer()
    nn.init.constant_(model.final_norm.weight, float("nan"))
    with pytest.raises(ValueError, match="the model puts out NaN"):
        beam_search(model, [5], 3)
