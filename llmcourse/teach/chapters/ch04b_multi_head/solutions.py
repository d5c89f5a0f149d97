"""Solutions of `04b_multi_head`: a right answer to each exercise."""


def split_heads(x, n_heads):
    """Reshape (B, T, C) to (B, H, T, D): head h gets columns h*D to (h+1)*D of every token."""
    B, T, C = x.shape
    return x.view(B, T, n_heads, C // n_heads).transpose(1, 2)


def share_heads(keys, group):
    """Repeat each key head `group` times in a row: (B, n_kv, T, D) to (B, n_kv * group, T, D)."""
    return keys.repeat_interleave(group, dim=1)


def kv_cache_bytes(n_layers, n_kv_heads, d_head, context_length, batch_size, bytes_per_number):
    """Bytes of keys and values of all layers."""
    return 2 * n_layers * n_kv_heads * d_head * context_length * batch_size * bytes_per_number


SOLUTIONS = {
    "04b-split": split_heads,
    "04b-parameters": 4 * 512 * 512,
    "04b-share": share_heads,
    "04b-cache": kv_cache_bytes,
}
