"""Weights in and out: our GPT <-> transformers' GPT-2 and Llama, and the course's checkpoints."""

from pathlib import Path

import torch
from torch import Tensor

from llmcourse.data.manifest import course_data
from llmcourse.folders import load_model
from llmcourse.folders import save_model as save_model  # readers look for both here
from llmcourse.model import GPT, ModelConfig
from llmcourse.tokenizer import BPETokenizer
from llmcourse.weights import whole

NO_SWITCHES = dict(qk_norm=False, scaled_embeddings=False, embedding_shift=0, token_shift=False,
                   value_embeddings=False, bigram_table=False, logit_cap=None)  # fmt: skip
GPT2_PARTS = dict(norm="layer", norm_position="pre", positions="learned", mlp="gelu_tanh", bias=True,
                  **NO_SWITCHES)  # fmt: skip
LLAMA_PARTS = dict(norm="rms", norm_position="pre", positions="rotary", mlp="swiglu", bias=False,
                   **NO_SWITCHES)  # fmt: skip


def _differences(config, wanted: dict) -> list[str]:
    """Return one phrase for each field of `config` that is not as wanted."""
    actual = {name: getattr(config, name) for name in wanted}
    return [
        f"{name}={actual[name]!r} (not {wanted[name]!r})" for name in wanted if actual[name] != wanted[name]
    ]


def _refuse(hf_config, **supported) -> None:
    if different := _differences(hf_config, supported):
        raise ValueError(f"{', '.join(different)}: this {hf_config.model_type} cannot be expressed here")


def config_from_transformers(hf_config) -> ModelConfig:
    """Return our configuration of a transformers GPT-2 or Llama configuration."""
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
    if hf_config.model_type == "llama":
        _refuse(hf_config, hidden_act="silu", attention_bias=False, mlp_bias=False)
        rope = hf_config.rope_parameters
        if rope["rope_type"] != "default":
            raise ValueError(f"rope_type={rope['rope_type']!r} is not written here: only 'default' is")
        if hf_config.head_dim * hf_config.num_attention_heads != hf_config.hidden_size:
            raise ValueError(
                f"head_dim={hf_config.head_dim} times {hf_config.num_attention_heads} heads is not the width "
                f"{hf_config.hidden_size}: other shapes are not written here"
            )
        return ModelConfig.llama(
            hf_config.vocab_size,
            context_length=hf_config.max_position_embeddings,
            d_model=hf_config.hidden_size,
            n_heads=hf_config.num_attention_heads,
            n_kv_heads=hf_config.num_key_value_heads,
            n_layers=hf_config.num_hidden_layers,
            d_ff=hf_config.intermediate_size,
            norm_eps=hf_config.rms_norm_eps,
            rotary_base=rope["rope_theta"],
            tied_embeddings=hf_config.tie_word_embeddings,
        )
    raise ValueError(f"model_type={hf_config.model_type!r}: only 'gpt2' and 'llama' can be converted")


def _gpt2_names(n_layers: int) -> dict[str, tuple[str, bool]]:
    """Our name -> (GPT-2's name, whether its matrix is stored transposed)."""
    names = {
        "token_embedding.weight": ("transformer.wte.weight", False),
        "position_embedding.weight": ("transformer.wpe.weight", False),
        "final_norm.weight": ("transformer.ln_f.weight", False),
        "final_norm.bias": ("transformer.ln_f.bias", False),
        "unembedding.weight": ("lm_head.weight", False),
    }
    layers = {
        "attention_norm": ("ln_1", False),
        "attention.qkv": ("attn.c_attn", True),
        "attention.out": ("attn.c_proj", True),
        "mlp_norm": ("ln_2", False),
        "mlp.up": ("mlp.c_fc", True),
        "mlp.down": ("mlp.c_proj", True),
    }
    for i in range(n_layers):
        for ours, (theirs, transposed) in layers.items():
            names[f"blocks.{i}.{ours}.weight"] = (f"transformer.h.{i}.{theirs}.weight", transposed)
            names[f"blocks.{i}.{ours}.bias"] = (f"transformer.h.{i}.{theirs}.bias", False)
    return names


def _llama_names(n_layers: int) -> dict[str, list[str]]:
    """Our name -> Llama's names, whose matrices stand one under the other in ours."""
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
    for i in range(n_layers):
        for ours, theirs in layers.items():
            names[f"blocks.{i}.{ours}.weight"] = [f"model.layers.{i}.{name}.weight" for name in theirs]
    return names


def from_transformers(model_or_name) -> GPT:
    """Return our GPT with the weights of a transformers GPT-2 or Llama causal language model.

    A string is a hub name such as "gpt2" or a folder. Raises ValueError for other architectures.
    """
    if isinstance(model_or_name, str | Path):
        from transformers import AutoModelForCausalLM

        model_or_name = AutoModelForCausalLM.from_pretrained(model_or_name)
    model = GPT(config_from_transformers(model_or_name.config))
    theirs = model_or_name.state_dict()
    state: dict[str, Tensor] = {}
    if model_or_name.config.model_type == "gpt2":
        for name, (source, transposed) in _gpt2_names(model.config.n_layers).items():
            state[name] = theirs[source].T if transposed else theirs[source]
    else:
        for name, sources in _llama_names(model.config.n_layers).items():
            state[name] = torch.cat([theirs[source] for source in sources])
    model.load_state_dict(state)
    return model.train(model_or_name.training)


def to_transformers(model: GPT):
    """Return a transformers GPT2LMHeadModel or LlamaForCausalLM with our model's weights.

    Raises ValueError, naming what is in the way, when the parts fit neither, or when the model holds
    adapters or weights of four bits.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    config, ours = whole(model)
    state: dict[str, Tensor] = {}
    not_gpt2, not_llama = _differences(config, GPT2_PARTS), _differences(config, LLAMA_PARTS)
    if config.n_kv_heads not in (None, config.n_heads):
        not_gpt2.append(f"n_kv_heads={config.n_kv_heads} (not n_heads={config.n_heads})")
    if not not_gpt2:
        hf_model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocab_size,
                n_positions=config.context_length,
                n_embd=config.d_model,
                n_head=config.n_heads,
                n_layer=config.n_layers,
                n_inner=config.hidden_width,
                layer_norm_epsilon=config.norm_eps,
                tie_word_embeddings=config.tied_embeddings,
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        for name, (target, transposed) in _gpt2_names(config.n_layers).items():
            state[target] = ours[name].T if transposed else ours[name]
    elif not not_llama:
        d_head = config.d_model // config.n_heads
        n_kv_heads = config.n_kv_heads or config.n_heads
        hf_model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size,
                max_position_embeddings=config.context_length,
                hidden_size=config.d_model,
                num_attention_heads=config.n_heads,
                num_key_value_heads=n_kv_heads,
                num_hidden_layers=config.n_layers,
                intermediate_size=config.hidden_width,
                rms_norm_eps=config.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": config.rotary_base},
                tie_word_embeddings=config.tied_embeddings,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        sizes = {
            "attention.qkv": [config.d_model, n_kv_heads * d_head, n_kv_heads * d_head],
            "mlp.up": [config.hidden_width, config.hidden_width],
        }
        for name, targets in _llama_names(config.n_layers).items():
            part = ".".join(name.split(".")[2:4])
            pieces = ours[name].split(sizes[part]) if len(targets) > 1 else [ours[name]]
            state.update(zip(targets, pieces, strict=True))
    else:
        raise ValueError(
            f"in the way of GPT-2: {', '.join(not_gpt2)}; in the way of Llama: {', '.join(not_llama)}; "
            "build the model with ModelConfig.gpt2 or ModelConfig.llama"
        )
    hf_model.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    return hf_model.train(model.training)


def course_stages() -> list[str]:
    """Return the names of the shipped stages of the course model."""
    return sorted(path.parent.name for path in course_data().glob("checkpoints/*/config.json"))


def load_course_model(stage: str = "pretrained") -> tuple[GPT, BPETokenizer]:
    """Return the course's own model at a stage, and its tokenizer. Raises ValueError if unknown."""
    if stage not in course_stages():
        raise ValueError(f"stage={stage!r} is not shipped: choose one of {course_stages()}")
    return load_model(course_data() / "checkpoints" / stage)
