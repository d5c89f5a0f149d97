"""Published shapes of models, as configurations: what chapter 3a counts and compares."""

from llmcourse.model import ModelConfig
from llmcourse.positions import RotaryScaling

# Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2.
GPT2_SMALL = ModelConfig.gpt2(50257, context_length=1024, d_model=768, n_heads=12, n_layers=12)
GPT2_XL = ModelConfig.gpt2(50257, context_length=1024, d_model=1600, n_heads=25, n_layers=48)

# The files config.json of meta-llama/Llama-3.2-1B and Qwen/Qwen3-0.6B.
LLAMA_3_2_1B = ModelConfig.llama(
    128256,
    context_length=131072,
    d_model=2048,
    n_heads=32,
    n_kv_heads=8,
    n_layers=16,
    d_ff=8192,
    rotary_base=5e5,
    rotary_scaling=RotaryScaling(factor=32, original_context=8192),
    tied_embeddings=True,
)
QWEN_3_06B = ModelConfig.llama(
    151936,
    context_length=40960,
    d_model=1024,
    n_heads=16,
    n_kv_heads=8,
    d_head=128,
    n_layers=28,
    d_ff=3072,
    rotary_base=1e6,
    qk_norm=True,
    norm_eps=1e-6,
    tied_embeddings=True,
)
