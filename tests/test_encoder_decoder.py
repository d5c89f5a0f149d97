"""The encoder-decoder against torch's layers, closed forms and invariances."""

import itertools
import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from llmcourse.config import CHOICES
from llmcourse.cross_attention import CrossAttention
from llmcourse.data.pairs import PairBatches, pair_batch
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.losses import next_token_loss, seq2seq_loss, smoothed_next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.pretrained import load_model, save_model
from llmcourse.seq2seq import generate_target, prefill_target
from llmcourse.tokenizer import BPETokenizer
from llmcourse.training import train

V, W = 13, 11  # tokens of the target and of the source


def randomize(module, seed=0):
    """Give every weight a size at which a mistake shows, in float64."""
    torch.manual_seed(seed)
    for name, parameter in module.double().named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.3)
    return module.eval()


def small_model(seed=0, **options):
    sizes = dict(vocab_size=V, source_vocab_size=W, context_length=12, source_context_length=9)
    sizes |= dict(d_model=16, n_heads=4, n_layers=2, n_encoder_layers=3)
    return randomize(EncoderDecoder(EncoderDecoderConfig(**(sizes | options))), seed)


def ids(B=2, T=7, vocab=V, seed=0):
    return torch.randint(vocab, (B, T), generator=torch.Generator().manual_seed(seed))


def source_ids(B=2, S=5, seed=1):
    return ids(B, S, W, seed)


def close(one, other, atol=1e-12):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


# --- torch's layers ------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention_equals_torch(bias):
    ours = randomize(CrossAttention(16, 4, bias=bias))
    theirs = nn.MultiheadAttention(16, 4, bias=bias, batch_first=True, dtype=torch.float64)
    state = {"in_proj_weight": torch.cat([ours.q.weight, ours.kv.weight]), "out_proj.weight": ours.out.weight}
    if bias:
        state |= {"in_proj_bias": torch.cat([ours.q.bias, ours.kv.bias]), "out_proj.bias": ours.out.bias}
    theirs.load_state_dict(state)
    x, states = torch.randn(2, 3, 16).double(), torch.randn(2, 5, 16).double()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    expected, weights = theirs(x, states, states, key_padding_mask=~mask, average_attn_weights=False)
    source = ours.read(states, mask[:, None, None])
    close(ours(x, source), expected)
    close(ours.weights(x, source), weights)


def torch_layers(config):
    options = dict(dim_feedforward=config.hidden_width, dropout=0.0, activation=config.mlp, batch_first=True)
    options |= dict(
        norm_first=config.norm_position == "pre", layer_norm_eps=config.norm_eps, dtype=torch.float64
    )
    encoder = [nn.TransformerEncoderLayer(16, 4, **options) for _ in range(config.encoder.n_layers)]
    decoder = [nn.TransformerDecoderLayer(16, 4, **options) for _ in range(config.n_layers)]
    return encoder, decoder


SELF = {"self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.out.", "linear1.": "mlp.up.",
        "linear2.": "mlp.down.", "norm1.": "attention_norm."}  # fmt: skip
READS = {
    "multihead_attn.out_proj.": "cross_attention.out.",
    "norm2.": "cross_attention_norm.",
    "norm3.": "mlp_norm.",
}


def give(theirs, ours, names):
    """Give torch's layer the weights of our block."""
    state = ours.state_dict()
    if "cross_attention.q.weight" in state:
        for kind in ("weight", "bias"):
            both = [state[f"cross_attention.{name}.{kind}"] for name in ("q", "kv")]
            state[f"cross_attention.qkv.{kind}"] = torch.cat(both)
        names = names | {"multihead_attn.in_proj_": "cross_attention.qkv."}
    theirs.load_state_dict(
        {a + kind: state[b + kind] for a, b in names.items() for kind in ("weight", "bias")}
    )
    return theirs


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("mlp", ["relu", "gelu"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_logits_are_those_of_torchs_layers(norm_position, mlp, padded):
    model = small_model(
        norm="layer", bias=True, positions="learned", mlp=mlp, norm_position=norm_position, d_ff=24
    )
    source, target = source_ids(), ids()
    mask = torch.ones_like(source).bool()
    if padded:
        mask[0, 3:] = False
    encoder, decoder = torch_layers(model.config)
    x = model.source_embedding(source) + model.encoder.position_embedding.weight[:5]
    y = model.token_embedding(target) + model.position_embedding.weight[:7]
    with torch.no_grad():
        for theirs, ours in zip(encoder, model.encoder.blocks, strict=True):
            x = give(theirs, ours, SELF | {"norm2.": "mlp_norm."})(x, src_key_padding_mask=~mask)
        x = model.encoder.final_norm(x)
        later = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
        for theirs, ours in zip(decoder, model.blocks, strict=True):
            y = give(theirs, ours, SELF | READS)(y, x, tgt_mask=later, memory_key_padding_mask=~mask)
        expected = model.unembedding(model.final_norm(y))
        close(model(source, target, mask), expected)
        close(model(source, target, mask.long()), expected)


# --- invariances ---------------------------------------------------------------------------------


PARTS = list(itertools.product(*CHOICES.values()))


@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_the_target_sees_the_whole_source_and_its_own_past(parts):
    model = small_model(**dict(zip(CHOICES, parts, strict=True)))
    source, target = source_ids(), ids()
    changed, other = target.clone(), source.clone()
    changed[:, 4] = (changed[:, 4] + 1) % V
    other[:, -1] = (other[:, -1] + 1) % W
    with torch.no_grad():
        logits = model(source, target)
        differences = [
            (logits - x).abs().amax((0, 2)) for x in (model(source, changed), model(other, target))
        ]
    assert logits.shape == (2, 7, V)
    assert (differences[0][:4] < 1e-12).all()
    assert (differences[0][4:] > 1e-7).all()
    assert (differences[1] > 1e-7).all()


@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize("n_kv_heads", [None, 1, 2])
def test_padding_changes_nothing_and_is_not_looked_at(positions, n_kv_heads):
    model = small_model(positions=positions, n_kv_heads=n_kv_heads, qk_norm=n_kv_heads == 2)
    source, target = source_ids(), ids()
    padded = torch.cat([source, torch.full((2, 3), 4)], dim=1)
    mask = (torch.arange(8) < 5).expand(2, 8)
    with torch.no_grad():
        close(model(padded, target, mask), model(source, target))
        close(model(source, target, torch.ones(2, 5, dtype=torch.int32)), model(source, target))
    maps = model.cross_attention_maps(padded, target, mask)
    assert [m.shape for m in maps] == [(2, 4, 7, 8)] * 2
    for weights, short in zip(maps, model.cross_attention_maps(source, target), strict=True):
        assert (weights[..., 5:] == 0).all()
        close(weights[..., :5], short)
        close(weights.sum(-1), torch.ones(2, 4, 7).double())
    for weights in model.attention_maps(source, target):
        assert (weights.triu(1) == 0).all()
        close(weights.sum(-1), torch.ones(2, 4, 7).double())
    for weights in model.encoder.attention_maps(model.embed_source(source, None)[0]):
        assert (weights > 0).all()  # both ways


def test_cross_attention_maps_are_the_weights_that_the_logits_are_made_with():
    """With one layer, no MLP and values of 1 on one position of the source only, the weight can be read off."""
    model = small_model(n_layers=1, n_heads=1, norm="layer", bias=True, norm_position="pre")
    block, source, target = model.blocks[0], source_ids(), ids()
    (weights,) = model.cross_attention_maps(source, target)
    memory, (x, rotary) = model.encode(source), model.embed(target)
    x = block.cross_attention_norm(block.look_back(x, rotary))
    for place in range(5):
        v = memory.layers[0].v
        v = torch.zeros_like(v)
        v[:, :, place, 0] = 1.0
        nn.init.eye_(block.cross_attention.out.weight)
        nn.init.zeros_(block.cross_attention.out.bias)
        with torch.no_grad():
            close(block.cross_attention(x, memory.layers[0]._replace(v=v))[..., 0], weights[:, 0, :, place])


def test_without_positions_the_order_of_the_source_does_not_matter():
    model, target = small_model(positions="none"), ids()
    source, order = source_ids(), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        close(model(source[:, order], target), model(source, target))
        rotary = small_model(positions="rotary")
        assert (rotary(source[:, order], target) - rotary(source, target)).abs().max() > 1e-3


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_caches_and_several_targets_of_a_source_give_the_same_logits(positions):
    model, source = small_model(positions=positions, n_kv_heads=2), source_ids()
    targets = ids(B=6)  # three of each source
    with torch.no_grad():
        memory, caches = model.encode(source), model.make_caches(6)
        whole = model.decode(targets, memory)
        pieces = [model.decode(part, memory, caches) for part in targets.split([1, 3, 1, 2], dim=1)]
        close(torch.cat(pieces, dim=1), whole)
        close(model(source.repeat_interleave(3, 0), targets), whole)


def test_the_source_is_read_once():
    model, reads = small_model(), []
    for block in model.blocks:
        block.cross_attention.kv.register_forward_hook(lambda *_: reads.append("kv"))
    model.encoder.register_forward_hook(lambda *_: reads.append("encoder"))
    generate_target(model, source_ids(), 6, start_id=0)
    assert reads == ["encoder", "kv", "kv"]


# --- configuration, counts, files ----------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("preset", ["transformer_2017", "marian", "llama"])
def test_parameter_count_equals_the_closed_form(preset, tied, shared):
    C, F, L, E, U = 16, 40, 2, 3, None if shared else W
    config = getattr(EncoderDecoderConfig, preset)(
        V, d_model=C, n_layers=L, n_encoder_layers=E, d_ff=F, tied_embeddings=tied, source_vocab_size=U
    )
    b, gates = (0, 2) if preset == "llama" else (1, 1)
    attention, norm = 4 * (C + b) * C, (1 + b) * C
    mlp = (C + b) * gates * F + (F + b) * C
    final = 2 * norm if config.norm_position == "pre" else 0
    ends = V * C * (1 if tied else 2) + (0 if shared else W * C) + (V if preset == "marian" else 0)
    expected = ends + E * (attention + mlp + 2 * norm) + L * (2 * attention + mlp + 3 * norm) + final
    assert EncoderDecoder(config).n_parameters() == expected


def test_the_2017_preset_has_the_size_of_the_paper():
    """Table 3: 65 M parameters, with 37,000 shared tokens (sec. 5.1)."""
    config = EncoderDecoderConfig.transformer_2017(37_000, d_model=512, n_heads=8, n_layers=6, d_ff=2048)
    with torch.device("meta"):
        assert round(EncoderDecoder(config).n_parameters() / 1e6) in (63, 64, 65)


@pytest.mark.parametrize("name", ["n_encoder_layers", "source_vocab_size", "source_context_length"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_a_size_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be at least 1"):
        EncoderDecoderConfig(V, **{name: value})


def test_a_model_is_built_from_its_own_configuration():
    with pytest.raises(
        ValueError, match="EncoderDecoder is built from a EncoderDecoderConfig, not from a ModelConfig"
    ):
        EncoderDecoder(ModelConfig(V))
    config = EncoderDecoderConfig.marian(V, n_encoder_layers=2)
    assert EncoderDecoderConfig(**json.loads(json.dumps(asdict(config)))) == config
    assert (config.mlp, config.norm_position, config.positions) == ("silu", "post", "sinusoidal")


@pytest.mark.parametrize("shared", [True, False])
def test_a_model_comes_back_from_its_folder(tmp_path, shared):
    model = small_model(vocab_size=259, source_vocab_size=None if shared else W).float()
    save_model(tmp_path, model, BPETokenizer.from_merges([]), torch.float32)
    other, _ = load_model(tmp_path, EncoderDecoder)
    assert other.config == model.config
    assert torch.equal(other(source_ids(), ids()), model(source_ids(), ids()))
    size = sum(p.numel() for p in model.parameters()) * 4
    assert (tmp_path / "model.safetensors").stat().st_size < size + 10_000  # nothing is written twice


def test_new_weights_have_the_spread_of_gpt2_in_both_stacks():
    torch.manual_seed(0)
    sizes = dict(d_model=128, n_layers=8, n_encoder_layers=2, d_ff=256)
    model = EncoderDecoder(EncoderDecoderConfig(500, source_vocab_size=300, **sizes))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            depth = 2 if name.startswith("encoder") else 8
            expected = 0.02 / (2 * depth) ** 0.5 if residual else 0.02
            assert abs(parameter.std().item() / expected - 1) < 0.05, name


# --- training ------------------------------------------------------------------------------------


def reversals(n, generator, longest=6):
    lengths = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
    rows = [torch.randint(2, V, (length,), generator=generator).tolist() for length in lengths]
    return [(row, row[::-1]) for row in rows]


@pytest.mark.parametrize("preset", ["transformer_2017", "llama"])
def test_it_learns_to_reverse(preset):
    torch.manual_seed(0)
    make = getattr(EncoderDecoderConfig, preset)
    model = EncoderDecoder(make(V, context_length=8, d_model=32, n_heads=2, n_layers=1, d_ff=64))
    pairs = reversals(2000, torch.Generator().manual_seed(0), longest=3)
    batches = PairBatches(pairs, start_id=0, end_id=1, batch_size=64)
    seen = [step.loss for step in train(model, batches, steps=400, lr=3e-3, loss=seq2seq_loss)]
    assert sum(seen[-40:]) / 40 < 0.8 < 2.4 < seen[0]  # the order of the source is needed to come below 1
    sources = [row for row, _ in reversals(100, torch.Generator().manual_seed(9), longest=3)]
    written = generate_target(model, sources, 5, start_id=0, stop_id=1).tolist()
    right = [row[: len(s) + 1] == [*s[::-1], 1] for row, s in zip(written, sources, strict=True)]
    assert sum(right) > 50


def test_the_loss_is_the_cross_entropy_of_what_is_written():
    model, batch = small_model(source_vocab_size=None), pair_batch([[5, 6], [7]], [[8], [9, 3]], 1, 2)
    source, mask, inputs, targets = batch
    total, count = seq2seq_loss(model, batch)
    assert count == 5
    alone = [
        model(torch.tensor([s]), torch.tensor([[1, *t]])).log_softmax(-1)[0]
        for s, t in (([5, 6], [8]), ([7], [9, 3]))
    ]
    expected = -sum(p[range(len(t)), t].sum() for p, t in zip(alone, ([8, 2], [9, 3, 2]), strict=True))
    close(total, expected)
    smoothed = smoothed_next_token_loss(0.1)
    found = seq2seq_loss(model, batch, loss=smoothed)
    for one, other in zip(found, smoothed(lambda x: model(source, x, mask), (inputs, targets)), strict=True):
        assert one == other
    assert found[2] == next_token_loss(lambda x: model(source, x, mask), (inputs, targets))[0]


def test_pairs_are_seen_once_an_epoch_and_little_is_padded():
    pairs = reversals(50, torch.Generator().manual_seed(1), longest=20)
    batches = PairBatches(pairs, start_id=0, end_id=1, batch_size=8, seed=5)
    for _ in range(2):
        seen, filled = [], 0
        for source, mask, inputs, targets in (next(batches) for _ in range(7)):
            for s, m, i, t in zip(source, mask, inputs, targets, strict=True):
                target = t[t != -100].tolist()
                seen.append((s[m].tolist(), target[:-1]))
                assert (i[0].item(), target[-1]) == (0, 1)
                assert i[1 : len(target)].tolist() == target[:-1]
            filled += int((~mask).sum())
        assert sorted(seen) == sorted(pairs)
        assert filled < 100  # in any order about 400 beside the 500


def test_batches_resume_and_refuse_other_pairs():
    pairs = reversals(20, torch.Generator().manual_seed(1))
    make = lambda **options: PairBatches(pairs, **(dict(start_id=0, end_id=1, batch_size=3) | options))  # noqa: E731
    one, other = make(), make()
    for _ in range(9):
        next(one)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for a, b in zip(next(one), next(other), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="batch_size=3 and these have 4"):
        make(batch_size=4).load_state_dict(one.state_dict())


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_greedy_is_the_argmax_of_the_whole_model_again_and_again(positions):
    model, source = small_model(positions=positions), source_ids(B=3)
    written = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(6):
        written = torch.cat([written, model(source, written)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generate_target(model, source, 6, start_id=0), written[:, 1:])
    stop = written[0, 3].item()
    stopped = generate_target(model, source, 6, start_id=0, stop_id=stop)
    for row, wanted in zip(stopped.tolist(), written[:, 1:].tolist(), strict=True):
        end = wanted.index(stop) if stop in wanted else len(wanted)
        assert row == [*wanted[:end], *[stop] * (stopped.shape[1] - end)]


def test_sampling_draws_from_the_probabilities():
    model = small_model().float()
    source = source_ids(B=1).expand(4000, -1)
    first = generate_target(model, source, 1, start_id=3, temperature=2.0, seed=0)[:, 0]
    expected = (model(source[:1], torch.tensor([[3]]))[0, -1] / 2).softmax(-1)
    assert (first.bincount(minlength=V) / 4000 - expected).abs().max() < 0.03
    again = generate_target(model, source, 1, start_id=3, temperature=2.0, seed=0)[:, 0]
    assert torch.equal(first, again)


def test_a_process_sees_the_start_and_what_is_written():
    seen = []

    def process(token_ids, logits):
        seen.append(token_ids.tolist())
        return logits.masked_fill(torch.arange(V) != 2 + token_ids.shape[1], float("-inf"))

    assert (
        generate_target(small_model(), [[5], [6]], 3, start_id=9, process=process).tolist() == [[3, 4, 5]] * 2
    )
    assert seen[-1] == [[9, 3, 4]] * 2


def test_lists_of_ids_are_padded_and_write_what_each_writes_alone():
    model = small_model()
    rows = [[5, 6, 7], [7], [2, 3]]
    together = generate_target(model, rows, 5, start_id=0)
    for row, written in zip(rows, together, strict=True):
        assert torch.equal(generate_target(model, row, 5, start_id=0)[0], written)


def test_dropout_is_off_while_writing_and_on_again_after():
    model = small_model(dropout=0.5).train()
    one, other = (prefill_target(model, source_ids(), 0)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert model.training
    assert model.encoder.training


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 4), r"source_mask is \(2, 4\) and the source \(2, 5\)"),
        (torch.ones(5), r"source_mask is \(5,\)"),
        (torch.ones(2, 5), "source_mask in torch.float32 says something else"),
        (torch.full((2, 5), 3), "source_mask in torch.int64 says something else"),
        (torch.tensor([[1] * 5, [0] * 5]), "row 1 of the source has no token"),
    ],
)
def test_a_mask_that_is_none_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        small_model()(source_ids(), ids(), mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(source_ids(S=10), ids()), "a source of 10 positions does not fit into 9.*source_context_length"),
        (lambda m: m(source_ids(), ids(T=13)), "13 tokens do not fit into the context of 12"),
        (lambda m: m(source_ids(), ids(B=3)), "2 sources but 3 targets"),
        (lambda m: m.decode(ids(B=3), m.encode(source_ids())), r"the target is \(3, 7\) for 2 sources"),
        (lambda m: m(torch.zeros(2, 0).long(), ids()), r"the source is \(2, 0\)"),
        (lambda m: m(torch.zeros(2, 5), ids()), r"the source is \(2, 5\) in torch.float32"),
        (lambda m: m.encode(torch.zeros(5).long()), r"the source is \(5,\)"),
        (lambda m: generate_target(m, [[5], []], 3, 0), "source 1 has the shape"),
        (lambda m: generate_target(m, [[5], [W]], 3, 0), rf"source 1\[0\] is {W}: give ids from 0 to {W - 1}"),
        (lambda m: generate_target(m, torch.tensor([[W]]), 3, 0), "give ids from 0 to"),
        (lambda m: generate_target(m, "hello", 3, 0), "the source is 'hello': give its ids"),
        (lambda m: generate_target(m, [5], 13, 0), "max_new_tokens=13: the model's context holds 12"),
        (lambda m: generate_target(m, [5], 0, 0), "max_new_tokens=0"),
        (lambda m: generate_target(m, [5], 3, V), "start_id"),
        (lambda m: generate_target(m, [5], 3, 0, stop_id=-1), "stop_id"),
        (lambda m: generate_target(m, [5], 3, 0, source_mask=torch.ones(1, 1)), "lists of ids are padded here"),
        (lambda m: pair_batch([[5], []], [[6], [7]], 0, 1), "source 1 has no token"),
        (lambda m: pair_batch([[5]], [[6], [7]], 0, 1), "1 sources but 2 targets"),
        (lambda m: PairBatches([], 0, 1), "nothing to put into batches"),
        (lambda m: PairBatches([([5], [6]), ([], [7])], 0, 1), "source 0 has no token|source 1 has no token"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(small_model())


def test_a_full_context_is_an_error():
    model = small_model(context_length=3)
    _, step = prefill_target(model, source_ids(), start_id=0)
    step(torch.tensor([1, 2])), step(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="context of 3"):
        step(torch.tensor([1, 2]))


def test_a_gpt_is_what_remains_without_a_source():
    """With values of 0 from the source, the decoder is the GPT of the same weights."""
    model = small_model(source_vocab_size=None, norm_position="pre")
    for block in model.blocks:
        nn.init.zeros_(block.cross_attention.out.weight)
    shape = {k: v for k, v in asdict(model.config).items() if k in asdict(ModelConfig(V))}
    gpt = GPT(replace(ModelConfig(**shape), n_layers=2)).double()
    gpt.load_state_dict({name: x for name, x in model.state_dict().items() if name in gpt.state_dict()})
    close(model(source_ids(), ids()), gpt(ids()))
