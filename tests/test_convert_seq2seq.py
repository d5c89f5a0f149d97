"""Weights carried to transformers' Marian and Pegasus and back: the logits are theirs."""

import itertools
from dataclasses import replace

import pytest
import torch
import transformers as hf
from torch import nn

from llmcourse.convert_seq2seq import (
    seq2seq_config_from_transformers,
    seq2seq_from_transformers,
    seq2seq_to_transformers,
)
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.model import GPT, ModelConfig
from llmcourse.seq2seq import generate_target

V, W = 23, 31
KINDS = {
    "marian": (hf.MarianConfig, hf.MarianMTModel),
    "pegasus": (hf.PegasusConfig, hf.PegasusForConditionalGeneration),
}


def their_config(kind="marian", **options):
    sizes = dict(d_model=16, encoder_layers=3, decoder_layers=2, max_position_embeddings=20)
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_ffn_dim": 24, f"{side}_attention_heads": 4}
    special = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None)
    return KINDS[kind][0](**(dict(vocab_size=W) | sizes | special | options))


def their_model(kind="marian", **options):
    """Return a model with weights at which a mistake shows."""
    torch.manual_seed(0)
    model = KINDS[kind][1](their_config(kind, **options)).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            nn.init.normal_(parameter, mean=1.0 if "layer_norm.weight" in name else 0.0, std=0.3)
    model.final_logits_bias.normal_()
    return model


def batch(vocab=V):
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(2, vocab, (3, 7), generator=generator)
    mask = torch.ones_like(source)
    mask[0, 4:] = 0
    return source, torch.randint(2, vocab, (3, 5), generator=generator), mask


def their_logits(model):
    source, target, mask = batch()
    with torch.no_grad():
        return model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits


def our_logits(model):
    with torch.no_grad():
        return model(*batch())


CASES = [
    dict(kind="marian", activation_function=act, share_encoder_decoder_embeddings=share, tie_word_embeddings=tie,
         scale_embedding=scale, decoder_vocab_size=W if share else V)
    for act, share, tie, scale in itertools.product(("swish", "gelu"), (True, False), (True, False), (True, False))
]  # fmt: skip
CASES += [
    dict(kind="pegasus", activation_function=a, tie_word_embeddings=t)
    for a in ("relu", "gelu_new")
    for t in (True, False)
]


@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
def test_the_logits_are_theirs_there_and_back(options):
    theirs = their_model(**options)
    ours = seq2seq_from_transformers(theirs)
    expected = their_logits(theirs)
    torch.testing.assert_close(our_logits(ours), expected, rtol=0, atol=2e-5)
    back = seq2seq_to_transformers(ours, start_id=0, stop_id=1)
    torch.testing.assert_close(their_logits(back), expected, rtol=0, atol=2e-5)
    again = seq2seq_from_transformers(back)
    assert again.config == ours.config
    for name, part in ours.state_dict().items():
        assert torch.equal(part, again.state_dict()[name]), name


@pytest.mark.parametrize("norm_position", ["post", "pre"])
@pytest.mark.parametrize("mlp", ["silu", "relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_ours_goes_there(norm_position, mlp, bias):
    torch.manual_seed(0)
    config = EncoderDecoderConfig.marian(
        W,
        d_model=16,
        n_layers=2,
        context_length=20,
        mlp=mlp,
        norm_position=norm_position,
        unembedding_bias=bias,
    )
    model = EncoderDecoder(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = seq2seq_to_transformers(model, start_id=0, stop_id=1)
    assert type(theirs).__name__ == (
        "MarianMTModel" if norm_position == "post" else "PegasusForConditionalGeneration"
    )
    torch.testing.assert_close(their_logits(theirs), our_logits(model), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writes_what_theirs_writes(kind):
    theirs = their_model(kind)
    source, _, mask = batch()
    written = theirs.generate(source, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=8)[
        :, 1:
    ]
    ours = generate_target(
        seq2seq_from_transformers(theirs), source, 8, start_id=0, stop_id=1, source_mask=mask
    )
    for one, other in zip(ours.tolist(), written.tolist(), strict=True):
        assert [t for t in one if t != 1] == [t for t in other if t > 1]


def test_the_maps_are_theirs():
    theirs = their_model()
    theirs.set_attn_implementation("eager")
    source, target, mask = batch()
    with torch.no_grad():
        out = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target, output_attentions=True)
    ours = seq2seq_from_transformers(theirs)
    for maps, expected in (
        (ours.cross_attention_maps(source, target, mask), out.cross_attentions),
        (ours.attention_maps(source, target, mask), out.decoder_attentions),
    ):
        for one, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_folder_and_a_shorter_context(tmp_path):
    theirs = their_model()
    theirs.save_pretrained(tmp_path)
    ours = seq2seq_from_transformers(tmp_path, context_length=9)
    assert ours.config.context_length == 9
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="context_length=21: the model has 20 positions"):
        seq2seq_from_transformers(theirs, context_length=21)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="model_type='t5': only 'marian' and 'pegasus'"):
        seq2seq_config_from_transformers(hf.T5Config())
    with pytest.raises(ValueError, match="encoder_ffn_dim=24, decoder_ffn_dim=32"):
        seq2seq_config_from_transformers(their_config(decoder_ffn_dim=32))
    with pytest.raises(ValueError, match="activation_function='tanh'"):
        seq2seq_config_from_transformers(their_config(activation_function="tanh"))
    learned = their_model()
    learned.model.encoder.embed_positions.weight.data.normal_()
    with pytest.raises(ValueError, match=r"encoder\.embed_positions\.weight holds no sines"):
        seq2seq_from_transformers(learned)
    with pytest.raises(ValueError, match="MarianModel has other weights"):
        seq2seq_from_transformers(their_model().model)
    config = EncoderDecoderConfig.marian(W, d_model=16, n_layers=1)
    for change in (dict(norm="rms"), dict(positions="rotary"), dict(mlp="swiglu"), dict(n_kv_heads=2)):
        with pytest.raises(ValueError, match=f"in the way: {next(iter(change))}"):
            seq2seq_to_transformers(EncoderDecoder(replace(config, **change)), 0, 1)
    with pytest.raises(ValueError, match="GPT has no counterpart"):
        seq2seq_to_transformers(GPT(ModelConfig(W, d_model=16)), 0, 1)
