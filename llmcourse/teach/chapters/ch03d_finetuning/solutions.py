"""Solutions of `03d_finetuning`: a right answer to each exercise."""


def answer_mask(token_ids, assistant_id, end_id):
    """True for each id that an assistant has to write: its text and its end token."""
    mask, speaking = [], False
    for token in token_ids:
        mask.append(speaking)
        if token == assistant_id:
            speaking = True
        elif token == end_id:
            speaking = False
    return mask


def lora_forward(x, W, A, B, alpha):
    """Return the frozen layer's output plus the scaled low-rank correction."""
    r = A.shape[0]
    return x @ W.T + (alpha / r) * (x @ A.T @ B.T)


def round_block(block, levels):
    """Return the block after scaling to [-1, 1], rounding to the nearest level, and scaling back."""
    scale = block.abs().max()
    nearest = (block[:, None] / scale - levels).abs().argmin(dim=1)
    return levels[nearest] * scale


SOLUTIONS = {
    "03d-mask": answer_mask,
    "03d-lora": lora_forward,
    "03d-parameters": 8 * (11_008 + 4_096),
    "03d-nf4": round_block,
}
