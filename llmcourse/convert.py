"""Weights in and out: our GPT <-> transformers' GPT-2, Llama and Qwen 3."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from llmcourse.model import GPT, ModelConfig
from llmcourse.positions import RotaryScaling
from llmcourse.pretrained import save_model as save_model  # readers look for both here
from llmcourse.weights import config_and_state, unwrap

GPT2_PARTS = dict(norm="layer", norm_position="pre", positions="learned", mlp="gelu_tanh", bias=True,
                  qk_norm=False, scaled_embeddings=False)  # fmt: skip
LLAMA_PARTS = dict(norm="rms", norm_position="pre", positions="rotary", mlp="swiglu", bias=False,
                   scaled_embeddings=False)  # fmt: skip


def _differences(config, wanted: dict) -> list[str]:
    """Return one phrase for each field of `config`, if it has that field, that is not as wanted."""
    actual = {name: getattr(config, name, wanted[name]) for name in wanted}
    return [
        f"{name}={actual[name]!r} (not {wanted[name]!r})" for name in wanted if actual[name] != wanted[name]
    ]


def _refuse(hf_config, **supported) -> None:
    if different := _differences(hf_config, supported):
        raise ValueError(f"{', '.join(different)}: this {hf_config.model_type} cannot be expressed here")


def config_from_transformers(hf_config) -> ModelConfig:
    """Return our configuration of a transformers GPT-2, Llama or Qwen 3 configuration.

    Raises ValueError, naming the field, for another model, or one with parts that are not written here.
    """
    if hf_config.model_type == "gpt2":
        _refuse(hf_config, activation_function="gelu_new", scale_attn_weights=True,
                scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)  # fmt: skip
        return ModelConfig.gpt2(
            hf_config.vocab_size,
            context_length=hf_config.n_positions,
            d_model=hf_config.n_embd,
            n_heads=hf_config.n_head,
            n_layers=hf_config.n_layer,
            d_ff=hf_config.n_inner,
            norm_eps=hf_config.layer_norm_epsilon,
            tied_embeddings=hf_config.tie_word_embeddings,
            dropout=hf_config.resid_pdrop,
        )
    if hf_config.model_type not in ("llama", "qwen3"):
        known = "only 'gpt2', 'llama' and 'qwen3' can be converted"
        raise ValueError(f"model_type={hf_config.model_type!r}: {known}")
    if getattr(hf_config, "is_heterogeneous", False):
        raise ValueError("per_layer_config=...: layers that differ are not written here")
    n_layers, n_heads = hf_config.num_hidden_layers, hf_config.num_attention_heads
    _refuse(hf_config, hidden_act="silu", attention_bias=False, mlp_bias=False)
    everything = ["full_attention"] * n_layers
    if getattr(hf_config, "layer_types", everything) != everything:
        _refuse(hf_config, layer_types=everything, use_sliding_window=False, sliding_window=None,
                max_window_layers=n_layers)  # fmt: skip
    plain_width = hf_config.head_dim * n_heads == hf_config.hidden_size
    return ModelConfig.llama(
        hf_config.vocab_size,
        context_length=hf_config.max_position_embeddings,
        d_model=hf_config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=hf_config.num_key_value_heads,
        d_head=None if plain_width else hf_config.head_dim,
        n_layers=n_layers,
        d_ff=hf_config.intermediate_size,
        norm_eps=hf_config.rms_norm_eps,
        qk_norm=hf_config.model_type == "qwen3",
        tied_embeddings=hf_config.tie_word_embeddings,
        **_rotary(hf_config.rope_parameters),
    )


def _rotary(rope: dict) -> dict:
    """Return our fields for what transformers calls rope_parameters."""
    kind, part, scaling = rope.get("rope_type"), rope.get("partial_rotary_factor"), None
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope_type={kind!r} is not written here: only 'default' and 'llama3' are")
    if part not in (None, 1):
        raise ValueError(f"partial_rotary_factor={part}: turning a part of each head is not written here")
    if kind == "llama3":
        names = "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
        scaling = RotaryScaling(*(rope[name] for name in names))
    return dict(rotary_base=rope["rope_theta"], rotary_scaling=scaling)


def _gpt2_names(config: ModelConfig) -> dict[str, list[str]]:
    """Our name -> GPT-2's name; it stores the matrices of the blocks transposed."""
    names = {
        "token_embedding.weight": ["transformer.wte.weight"],
        "position_embedding.weight": ["transformer.wpe.weight"],
        "final_norm.weight": ["transformer.ln_f.weight"],
        "final_norm.bias": ["transformer.ln_f.bias"],
        "unembedding.weight": ["lm_head.weight"],
    }
    layers = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
              "mlp_norm": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}  # fmt: skip
    for i in range(config.n_layers):
        for ours, theirs in layers.items():
            for part in ("weight", "bias"):
                names[f"blocks.{i}.{ours}.{part}"] = [f"transformer.h.{i}.{theirs}.{part}"]
    return names


def _llama_names(config: ModelConfig) -> dict[str, list[str]]:
    """Our name -> the names of Llama or Qwen 3, whose matrices stand one under the other in ours."""
    names = {
        "token_embedding.weight": ["model.embed_tokens.weight"],
        "final_norm.weight": ["model.norm.weight"],
        "unembedding.weight": ["lm_head.weight"],
    }
    layers = {
        "attention_norm": ["input_layernorm"],
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out": ["self_attn.o_proj"],
        "mlp_norm": ["post_attention_layernorm"],
        "mlp.up": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.down": ["mlp.down_proj"],
    }
    if config.qk_norm:
        layers |= {"attention.q_norm": ["self_attn.q_norm"], "attention.k_norm": ["self_attn.k_norm"]}
    for i in range(config.n_layers):
        for ours, theirs in layers.items():
            names[f"blocks.{i}.{ours}.weight"] = [f"model.layers.{i}.{name}.weight" for name in theirs]
    return names


def _turned(name: str, tensor: Tensor, gpt2: bool) -> Tensor:
    """Return what GPT-2 stores transposed the other way round."""
    return tensor.T if gpt2 and name.startswith("blocks.") and tensor.dim() == 2 else tensor


def from_transformers(model_or_name, context_length: int | None = None) -> GPT:
    """Return our GPT with the weights of a transformers GPT-2, Llama or Qwen 3 causal language model.

    A string is a hub name such as "gpt2" or a folder. A `context_length` below the model's saves
    memory: the cache of a Llama 3.2 of 1 billion parameters would take 8 GiB at its full length.
    Raises ValueError, naming what is in the way, for other architectures and other weights.
    """
    if isinstance(model_or_name, str | Path):
        from transformers import AutoModelForCausalLM

        model_or_name = AutoModelForCausalLM.from_pretrained(model_or_name)
    if not hasattr(model_or_name, "state_dict"):
        raise ValueError(
            f"{type(model_or_name).__name__} has no weights: give a model or its name; of a configuration, "
            "config_from_transformers makes ours"
        )
    config = config_from_transformers(model_or_name.config)
    if context_length is not None:
        if context_length > config.context_length:
            raise ValueError(
                f"context_length={context_length}: the model has {config.context_length} positions, give no more"
            )
        config = replace(config, context_length=context_length)
    gpt2, theirs = model_or_name.config.model_type == "gpt2", model_or_name.state_dict()
    names = _gpt2_names(config) if gpt2 else _llama_names(config)
    known = {source for sources in names.values() for source in sources}
    if differ := sorted(known ^ theirs.keys()):
        raise ValueError(
            f"{type(model_or_name).__name__} has other weights than expected: {', '.join(differ[:4])}"
            f"{' ...' * (len(differ) > 4)}; give a causal language model, without adapters and not quantized"
        )
    state = {
        name: torch.cat([_turned(name, theirs[source], gpt2) for source in sources])
        for name, sources in names.items()
    }
    if gpt2:
        state["position_embedding.weight"] = state["position_embedding.weight"][: config.context_length]
    if not torch.equal(state["token_embedding.weight"], state["unembedding.weight"]):
        config = replace(config, tied_embeddings=False)  # whatever theirs says, as after a merge of adapters
    model = GPT(config)
    model.load_state_dict(state)
    return model.train(model_or_name.training)


def to_transformers(model: GPT):
    """Return a transformers GPT2LMHeadModel, LlamaForCausalLM or Qwen3ForCausalLM with our model's weights.

    Raises ValueError, naming what is in the way, when the parts fit none of them, or when the model
    holds adapters or weights of four bits.
    """
    import transformers as hf

    config, ours = config_and_state(model)
    if type(config) is not ModelConfig:
        raise ValueError(f"{type(unwrap(model)).__name__} has no counterpart: convert a plain GPT")
    not_gpt2, not_llama = _differences(config, GPT2_PARTS), _differences(config, LLAMA_PARTS)
    if config.n_kv_heads not in (None, config.n_heads):
        not_gpt2.append(f"n_kv_heads={config.n_kv_heads} (not n_heads={config.n_heads})")
    if config.n_heads * config.head_width != config.d_model:
        not_gpt2.append(f"d_head={config.d_head} (not d_model / n_heads)")
    if not config.qk_norm and config.d_model % config.n_heads:
        not_llama.append(f"n_heads={config.n_heads} (does not divide d_model={config.d_model})")
    names = _gpt2_names(config) if not not_gpt2 else _llama_names(config)
    shared = dict(vocab_size=config.vocab_size, tie_word_embeddings=config.tied_embeddings)
    shared |= dict(bos_token_id=None, eos_token_id=None)
    if not not_gpt2:
        hf_model = hf.GPT2LMHeadModel(
            hf.GPT2Config(
                n_positions=config.context_length,
                n_embd=config.d_model,
                n_head=config.n_heads,
                n_layer=config.n_layers,
                n_inner=config.hidden_width,
                layer_norm_epsilon=config.norm_eps,
                **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
                **shared,
            )
        )
    elif not not_llama:
        kind = "Qwen3" if config.qk_norm else "Llama"
        hf_model = getattr(hf, kind + "ForCausalLM")(
            getattr(hf, kind + "Config")(
                max_position_embeddings=config.context_length,
                hidden_size=config.d_model,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_kv_heads or config.n_heads,
                head_dim=config.head_width,
                num_hidden_layers=config.n_layers,
                intermediate_size=config.hidden_width,
                rms_norm_eps=config.norm_eps,
                rope_parameters=_rope_parameters(config),
                **shared,
            )
        )
    else:
        raise ValueError(
            f"in the way of GPT-2: {', '.join(not_gpt2)}; in the way of Llama: {', '.join(not_llama)}; "
            "build the model with ModelConfig.gpt2 or ModelConfig.llama"
        )
    sizes, state = {name: tensor.shape for name, tensor in hf_model.state_dict().items()}, {}
    for name, targets in names.items():
        rows = [sizes[target][0] for target in targets]
        pieces = ours[name].split(rows) if len(targets) > 1 else [_turned(name, ours[name], not not_gpt2)]
        state.update(zip(targets, pieces, strict=True))
    hf_model.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    return hf_model.train(model.training)


def _rope_parameters(config: ModelConfig) -> dict:
    """Return what transformers calls rope_parameters for our fields."""
    rope, scaling = {"rope_type": "default", "rope_theta": config.rotary_base}, config.rotary_scaling
    if scaling is not None:
        rope |= dict(rope_type="llama3", factor=scaling.factor, low_freq_factor=scaling.low_freq_factor,
                     high_freq_factor=scaling.high_freq_factor,
                     original_max_position_embeddings=scaling.original_context)  # fmt: skip
    return rope
