"""Solutions of `05c_precision_and_speed`: a right answer to each exercise."""

import torch


def to_bf16(x):
    """Round float32 numbers to the nearest bfloat16, half-way cases to even; return float32."""
    bits = x.view(torch.int32)
    last = (bits >> 16) & 1  # the last bit that stays
    return ((bits + 0x7FFF + last) & ~0xFFFF).view(torch.float32)


def next_scale(scale, good_steps, overflow, growth_interval):
    """Return the new scale of the loss and the number of good steps in a row."""
    if overflow:
        return scale / 2, 0
    if good_steps + 1 == growth_interval:
        return scale * 2, 0
    return scale, good_steps + 1


def block_flops(d_model, d_ff, context_length):
    """Return the operations of one block for one token, forward."""
    matrices = 2 * (4 * d_model * d_model + 2 * d_model * d_ff)
    attention = 2 * (2 * context_length * d_model)
    return matrices + attention


SOLUTIONS = {
    "05c-bits": to_bf16,
    "05c-scaler": next_scale,
    "05c-flops": block_flops,
}
