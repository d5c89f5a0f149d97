"""Weights in and out: our EncoderDecoder <-> transformers' Marian (OPUS-MT) and Pegasus.

Both have the parts of 2017, Pegasus with each norm before its part. They lay the sines of positions in
the first half of the columns and the cosines in the second; ours alternate, as in the paper. The same
order of columns throughout the model makes it the same function, so the weights are reordered.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.positions import sinusoidal_positions
from llmcourse.weights import config_and_state, unwrap

ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh"}
PARTS = dict(norm="layer", positions="sinusoidal", bias=True, qk_norm=False, norm_eps=1e-5, n_kv_heads=None,
             d_head=None)  # fmt: skip
SELF = {"attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out": ["self_attn.out_proj"], "attention_norm": ["self_attn_layer_norm"],
        "mlp.up": ["fc1"], "mlp.down": ["fc2"], "mlp_norm": ["final_layer_norm"]}  # fmt: skip
CROSS = {"cross_attention.q": ["encoder_attn.q_proj"], "cross_attention.out": ["encoder_attn.out_proj"],
         "cross_attention.kv": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
         "cross_attention_norm": ["encoder_attn_layer_norm"]}  # fmt: skip


def seq2seq_config_from_transformers(hf_config) -> EncoderDecoderConfig:
    """Return our configuration of a transformers Marian or Pegasus configuration.

    Raises ValueError, naming the field, for another model, or one with parts that are not written here.
    """
    kind = hf_config.model_type
    if kind not in ("marian", "pegasus"):
        raise ValueError(f"model_type={kind!r}: only 'marian' and 'pegasus' can be converted")
    for part in ("attention_heads", "ffn_dim"):
        one, other = (getattr(hf_config, f"{side}_{part}") for side in ("encoder", "decoder"))
        if one != other:
            raise ValueError(
                f"encoder_{part}={one}, decoder_{part}={other}: both stacks are equally wide here"
            )
    if hf_config.activation_function not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(
            f"activation_function={hf_config.activation_function!r} is not written here: only {known}"
        )
    shared = getattr(hf_config, "share_encoder_decoder_embeddings", True)
    return EncoderDecoderConfig.marian(
        hf_config.vocab_size if shared else hf_config.decoder_vocab_size,
        source_vocab_size=None if shared else hf_config.vocab_size,
        norm_position="post" if kind == "marian" else "pre",
        context_length=hf_config.max_position_embeddings,
        d_model=hf_config.d_model,
        n_heads=hf_config.decoder_attention_heads,
        n_layers=hf_config.decoder_layers,
        n_encoder_layers=hf_config.encoder_layers,
        d_ff=hf_config.decoder_ffn_dim,
        mlp=ACTIVATIONS[hf_config.activation_function],
        scaled_embeddings=hf_config.scale_embedding,
        tied_embeddings=hf_config.tie_word_embeddings,
        dropout=hf_config.dropout,
    )


def _names(config: EncoderDecoderConfig) -> dict[str, list[str]]:
    """Our name -> theirs, whose matrices stand one under the other in ours."""
    names = {
        "token_embedding.weight": ["model.decoder.embed_tokens.weight"],
        "unembedding.weight": ["lm_head.weight"],
    }
    if config.unembedding_bias:
        names["unembedding.bias"] = ["final_logits_bias"]
    if config.source_vocab_size is not None:
        names["source_embedding.weight"] = ["model.encoder.embed_tokens.weight"]
    stacks = [
        ("encoder.", "encoder", config.encoder.n_layers, SELF),
        ("", "decoder", config.n_layers, SELF | CROSS),
    ]
    for ours, theirs, n_layers, parts in stacks:
        layers = {f"{ours}blocks.{i}.": f"model.{theirs}.layers.{i}." for i in range(n_layers)}
        pairs = {a + x: [b + y for y in ys] for a, b in layers.items() for x, ys in parts.items()}
        if config.norm_position == "pre":
            pairs[f"{ours}final_norm"] = [f"model.{theirs}.layer_norm"]
        for kind in ("weight", "bias"):
            names |= {
                f"{name}.{kind}": [f"{source}.{kind}" for source in sources]
                for name, sources in pairs.items()
            }
    return names


def _reordered(name: str, tensor: Tensor, order: Tensor) -> Tensor:
    """Return `tensor` with the columns of the residual stream in another order, where it has such."""
    part, kind = name.split(".")[-2:]
    if part in ("out", "down") or "norm" in part:  # what is added to the stream, and what scales it
        return tensor[order]
    return tensor[:, order] if kind == "weight" else tensor


def _order(d_model: int) -> Tensor:
    """Return which of their columns each of ours is: the first sine, the first cosine, the second sine..."""
    return torch.arange(d_model).view(2, -1).T.flatten()


def seq2seq_from_transformers(model_or_name, context_length: int | None = None) -> EncoderDecoder:
    """Return our EncoderDecoder with the weights of a transformers MarianMTModel or PegasusForConditionalGeneration.

    A string is a hub name such as "Helsinki-NLP/opus-mt-de-en" or a folder. Its targets begin with
    `config.decoder_start_token_id`, which is the padding, and sources end with `eos_token_id`. A smaller
    `context_length` saves memory. Raises ValueError, naming what is in the way, for another model.
    """
    if isinstance(model_or_name, str | Path):
        from transformers import AutoModelForSeq2SeqLM

        model_or_name = AutoModelForSeq2SeqLM.from_pretrained(model_or_name)
    config, theirs = seq2seq_config_from_transformers(model_or_name.config), dict(model_or_name.state_dict())
    tables = {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}
    copies = {"model.shared.weight", "model.encoder.embed_tokens.weight"}
    known = {source for sources in _names(config).values() for source in sources} | tables
    if differ := sorted((known ^ theirs.keys()) - copies):
        raise ValueError(
            f"{type(model_or_name).__name__} has other weights than expected: {', '.join(differ[:4])}"
            f"{' ...' * (len(differ) > 4)}; give a model that writes, without adapters and not quantized"
        )
    both = [theirs[f"model.{side}.embed_tokens.weight"] for side in ("encoder", "decoder")]
    if config.source_vocab_size is None and not torch.equal(*both):  # whatever theirs says
        config = replace(config, source_vocab_size=config.vocab_size)
    order, names = _order(config.d_model), _names(config)
    wanted = sinusoidal_positions(config.context_length, config.d_model)
    for name in sorted(tables):
        table = theirs[name][:, order].float().cpu()
        if table.shape != wanted.shape or not torch.allclose(table, wanted, rtol=0, atol=1e-3):
            raise ValueError(f"{name} holds no sines and cosines: this model cannot be expressed here")
    theirs["final_logits_bias"] = theirs["final_logits_bias"][0]  # (1, V) there
    parts = {name: torch.cat([theirs[source] for source in sources]) for name, sources in names.items()}
    state = {name: _reordered(name, part, order) for name, part in parts.items()}
    if not torch.equal(state["token_embedding.weight"], state["unembedding.weight"]):
        config = replace(config, tied_embeddings=False)
    if context_length is not None:
        if context_length > config.context_length:
            has = config.context_length
            raise ValueError(f"context_length={context_length}: the model has {has} positions, give no more")
        config = replace(config, context_length=context_length)
    model = EncoderDecoder(config)
    model.load_state_dict(state)
    return model.train(model_or_name.training)


def seq2seq_to_transformers(model: EncoderDecoder, start_id: int, stop_id: int, pad_id: int | None = None):
    """Return a transformers MarianMTModel, or PegasusForConditionalGeneration, with our model's weights.

    The ids go into its configuration; the padding is `start_id` where none is given. Raises ValueError,
    naming what is in the way, when the parts fit neither.
    """
    import transformers as hf

    config, ours = config_and_state(model)
    if type(config) is not EncoderDecoderConfig:
        raise ValueError(f"{type(unwrap(model)).__name__} has no counterpart: convert a plain EncoderDecoder")
    wrong = [
        f"{n}={getattr(config, n)!r} (not {value!r})"
        for n, value in PARTS.items()
        if getattr(config, n) != value
    ]
    activation = {ours_: theirs for theirs, ours_ in ACTIVATIONS.items() if theirs != "swish"}.get(config.mlp)
    wrong += [] if activation else [f"mlp={config.mlp!r}"]
    pre = config.norm_position == "pre"
    if pre and (config.tied_embeddings or config.source_vocab_size != config.vocab_size):
        wrong += [] if config.source_vocab_size is None else [f"source_vocab_size={config.source_vocab_size}"]
    if wrong:
        raise ValueError(f"in the way: {', '.join(wrong)}; build the model with EncoderDecoderConfig.marian")
    both = {f"{side}_{name}": value for side in ("encoder", "decoder")
            for name, value in (("attention_heads", config.n_heads), ("ffn_dim", config.hidden_width))}  # fmt: skip
    options = both | dict(
        vocab_size=config.source_vocab_size or config.vocab_size,
        max_position_embeddings=max(config.context_length, config.encoder.context_length),
        d_model=config.d_model,
        encoder_layers=config.encoder.n_layers,
        decoder_layers=config.n_layers,
        activation_function=activation,
        scale_embedding=config.scaled_embeddings,
        tie_word_embeddings=config.tied_embeddings,
        dropout=config.dropout,
        decoder_start_token_id=start_id,
        eos_token_id=stop_id,
        forced_eos_token_id=None,
        pad_token_id=start_id if pad_id is None else pad_id,
    )
    if pre:
        hf_model = hf.PegasusForConditionalGeneration(hf.PegasusConfig(**options))
    else:
        shared = config.source_vocab_size is None
        sides = dict(share_encoder_decoder_embeddings=shared, decoder_vocab_size=config.vocab_size)
        hf_model = hf.MarianMTModel(hf.MarianConfig(**options, **sides))
    state, back = dict(hf_model.state_dict()), _order(config.d_model).argsort()
    for name, targets in _names(config).items():
        part = _reordered(name, ours[name], back)
        for target, piece in zip(
            targets, part.split([state[t].shape[-2 if part.dim() > 1 else -1] for t in targets]), strict=True
        ):
            state[target] = piece.view_as(state[target]).clone()
    if config.source_vocab_size is None:
        for copy in ("model.shared.weight", "model.encoder.embed_tokens.weight"):
            state[copy] = state["model.decoder.embed_tokens.weight"]
    hf_model.load_state_dict(state)
    return hf_model.train(model.training)
