"""A Whisper that is small and random: 8 bands, 40 frames, 30 tokens."""

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration


def small_whisper() -> WhisperForConditionalGeneration:
    """Return it, the same each time."""
    torch.manual_seed(0)
    shape = dict(d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2)
    shape |= dict(
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, vocab_size=30, num_mel_bins=8
    )
    shape |= dict(
        max_source_positions=20, max_target_positions=12, pad_token_id=0, bos_token_id=0, eos_token_id=0
    )
    shape |= dict(decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)
    return WhisperForConditionalGeneration(WhisperConfig(**shape)).eval()
