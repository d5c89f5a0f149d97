"""Attention against torch, loops written by hand, and its invariances."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmcourse.attention import (
    KVCache,
    MultiHeadAttention,
    causal_mask,
    document_mask,
    fused_attention,
    scaled_dot_product_attention,
)
from llmcourse.positions import rotary_angles


def random_qkv(T, S, D=6, Dv=6, batch=(2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (*batch, T, D), (*batch, S, D), (*batch, S, Dv)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def make_mask(kind, T, S):
    generator = torch.Generator().manual_seed(1)
    if kind == "bool":
        mask = torch.rand(T, S, generator=generator) < 0.5
        mask[:, 0] = True  # each query may look somewhere
        return mask
    if kind == "float":
        return torch.randn(T, S, generator=generator, dtype=torch.float64)
    return None


def mixed_by_weights(layer, x, rotary=None, **options):
    """What the layer puts out, from its weights and the formula."""
    v = layer.split_heads(x, rotary)[2].repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=1)
    weights = layer.weights(x, rotary=rotary, **options)
    return layer.out((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


def random_attention(seed=0, **options):
    """A layer in float64 whose weights are large enough for uneven attention."""
    torch.manual_seed(seed)
    layer = MultiHeadAttention(**options).double().eval()
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.5)
    return layer


# --- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "S"), [(1, 1), (4, 4), (3, 7), (1, 5)])
def test_causal_mask_lets_the_last_queries_look_at_themselves_and_the_past(T, S):
    mask = causal_mask(T, S)
    assert mask.dtype == torch.bool
    for t in range(T):
        for s in range(S):
            assert mask[t, s] == (s <= S - T + t)


def test_causal_mask_is_square_by_default():
    assert torch.equal(causal_mask(5), causal_mask(5, 5))


def test_document_mask_lets_a_token_see_only_the_past_of_its_own_document():
    end = 9
    rows = [[1, 2, 9, 3, 9, 9, 4], [9, 1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7]]
    mask = document_mask(torch.tensor(rows), end_id=end)
    assert mask.shape == (3, 1, 7, 7)
    for b, row in enumerate(rows):
        for t in range(7):
            for s in range(7):
                crosses = end in row[s:t]  # an end token at s..t-1 closes the document of s before t
                assert mask[b, 0, t, s] == (s <= t and not crosses)


def test_documents_packed_in_one_row_are_as_if_alone():
    layer = random_attention(d_model=8, n_heads=2)
    token_ids = torch.tensor([[3, 4, 0, 5, 6, 7, 0]])
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        packed = layer(x, mask=document_mask(token_ids, end_id=0))
        alone = [layer(part, is_causal=True) for part in (x[:, :3], x[:, 3:])]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=0, atol=1e-12)


# --- scaled_dot_product_attention --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 8), (8, 3), (1, 4)])
def test_equals_torch(kind, T, S):
    q, k, v = random_qkv(T, S, D=6, Dv=4)
    mask = make_mask(kind, T, S)
    ours = scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, mask), rtol=0, atol=1e-12)


def test_causal_equals_torch():
    q, k, v = random_qkv(6, 6)
    ours = scaled_dot_product_attention(q, k, v, is_causal=True)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_causal_with_more_keys_than_queries_aligns_to_the_last_key():
    q, k, v = random_qkv(3, 7)
    ours = scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.tensor([[s <= t + 4 for s in range(7)] for t in range(3)])
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_three_loops(masked):
    q, k, v = (t.squeeze(0) for t in random_qkv(4, 6, D=3, Dv=2, batch=(1,)))
    mask = make_mask("bool" if masked else "none", 4, 6)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    for t in range(4):
        shares = []
        for s in range(6):
            score = 0.0
            for d in range(3):
                score += q[t, d].item() * k[s, d].item()
            visible = mask is None or bool(mask[t, s])
            shares.append(math.exp(score / math.sqrt(3)) if visible else 0.0)
        for s in range(6):
            expected[t] += shares[s] / sum(shares) * v[s]
    torch.testing.assert_close(scaled_dot_product_attention(q, k, v, mask), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
def test_weights_are_a_distribution_over_the_visible_keys(kind):
    q, k, v = random_qkv(5, 5)
    causal = kind == "causal"
    mask = make_mask(kind, 5, 5)
    output, weights = scaled_dot_product_attention(q, k, v, mask, causal, return_weights=True)
    assert weights.shape == (2, 3, 5, 5)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(weights @ v, output, rtol=0, atol=1e-12)
    visible = causal_mask(5) if causal else mask if kind == "bool" else torch.ones(5, 5, dtype=torch.bool)
    assert (weights[..., ~visible] == 0).all()
    assert (weights[..., visible] > 0).all()


@pytest.mark.parametrize("kind", ["none", "float", "causal"])
def test_gradients_equal_finite_differences(kind):
    inputs = [t.requires_grad_() for t in random_qkv(3, 3, D=2, Dv=2, batch=(1,))]
    mask = make_mask(kind, 3, 3)

    def attend(q, k, v):
        return scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal")

    assert torch.autograd.gradcheck(attend, inputs)


def mask_with_rows_that_may_look_nowhere(kind, dtype=torch.float64):
    """For 5 queries and 6 keys; queries 1 and 4 may look nowhere."""
    mask = make_mask("bool", 5, 6)
    mask[1], mask[4] = False, False
    if kind == "bool":
        return mask
    return torch.randn(5, 6, dtype=dtype).masked_fill(~mask, float("-inf"))


@pytest.mark.parametrize("kind", ["bool", "float", "all"])
@pytest.mark.parametrize("function", [scaled_dot_product_attention, fused_attention])
def test_a_query_that_may_look_nowhere_gets_zeros_and_gradients_as_in_torch(function, kind):
    mask = torch.zeros(5, 6).bool() if kind == "all" else mask_with_rows_that_may_look_nowhere(kind)
    ours, theirs = ([t.requires_grad_() for t in random_qkv(5, 6)] for _ in range(2))
    y, expected = function(*ours, mask), F.scaled_dot_product_attention(*theirs, mask)
    assert (y[..., [1, 4], :] == 0).all()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    y.square().sum().backward()
    expected.square().sum().backward()
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, right.grad, rtol=0, atol=1e-12)
    assert (ours[0].grad[..., [1, 4], :] == 0).all()


def test_more_queries_than_keys_leave_the_first_ones_without_any():
    q, k, v = (t.requires_grad_() for t in random_qkv(5, 3))
    y, weights = scaled_dot_product_attention(q, k, v, is_causal=True, return_weights=True)
    assert weights.sum(-1)[0, 0].round(decimals=12).tolist() == [0, 0, 1, 1, 1]
    y.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_with_such_rows_is_the_same_with_weights_and_without(kind, autocast):
    layer, x = random_attention(d_model=8, n_heads=4, n_kv_heads=2, bias=True).float(), torch.randn(2, 5, 8)
    mask, gradients = mask_with_rows_that_may_look_nowhere(kind, torch.float32)[:, :5], []
    for attend in (layer, lambda x, mask: mixed_by_weights(layer, x, mask=mask)):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y, weights = attend(x, mask=mask), layer.weights(x, mask=mask)
        torch.testing.assert_close(y[:, [1, 4]].float(), layer.out.bias.expand(2, 2, 8), rtol=0, atol=0.01)
        y.float().square().sum().backward()
        gradients.append((y.detach(), *(p.grad.clone() for p in layer.parameters())))
    assert (weights[..., [1, 4], :] == 0).all()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1 if autocast else 1e-5, atol=0.5 if autocast else 1e-5)


def test_such_rows_behind_a_cache_get_zeros_too():
    layer, x = random_attention(d_model=8, n_heads=2), torch.randn(1, 4, 8, dtype=torch.float64)
    mask = causal_mask(4) & torch.tensor([False, False, False, True])  # three of padding
    whole = layer(x, mask=mask)
    cache = KVCache(1, 2, 4, 4, dtype=torch.float64)
    parts = [
        layer(part, mask=mask[t : t + 2, : t + 2], cache=cache) for t, part in ((0, x[:, :2]), (2, x[:, 2:]))
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)
    assert (whole[:, :3] == 0).all()


def test_order_of_keys_does_not_matter_and_order_of_queries_is_kept():
    q, k, v = random_qkv(5, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = scaled_dot_product_attention(q, k, v)
    keys_moved = scaled_dot_product_attention(q, k[..., order, :], v[..., order, :])
    queries_moved = scaled_dot_product_attention(q[..., order, :], k, v)
    torch.testing.assert_close(keys_moved, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(queries_moved, plain[..., order, :], rtol=0, atol=1e-12)


def test_adding_a_constant_to_the_scores_of_a_query_changes_nothing():
    q, k, v = random_qkv(4, 4)
    shift = torch.tensor([5.0, -3.0, 100.0, 0.0], dtype=torch.float64)[:, None].expand(4, 4)
    shifted = scaled_dot_product_attention(q, k, v, shift)
    torch.testing.assert_close(shifted, scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 4), (2, 3), (2, 3)), {}, r"queries are 4 wide and keys 3: .*check the last dimension"),
        (((2, 4), (5, 4), (6, 4)), {}, r"5 keys but 6 values: .*check the second-to-last dimension"),
        (
            ((2, 4), (2, 4), (2, 4)),
            {"mask": torch.ones(2, 2, dtype=torch.bool), "is_causal": True},
            r"either mask or is_causal=True; combine them as mask & causal_mask",
        ),
    ],
)
def test_wrong_inputs_say_what_to_check(shapes, options, message):
    q, k, v = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        scaled_dot_product_attention(q, k, v, **options)


# --- MultiHeadAttention ------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_layer_equals_torch_multihead_attention(n_heads, causal, bias):
    ours = random_attention(d_model=8, n_heads=n_heads, bias=bias)
    theirs = nn.MultiheadAttention(8, n_heads, bias=bias, batch_first=True, dtype=torch.float64).eval()
    state = {"in_proj_weight": ours.qkv.weight, "out_proj.weight": ours.out.weight}
    if bias:
        state |= {"in_proj_bias": ours.qkv.bias, "out_proj.bias": ours.out.bias}
    theirs.load_state_dict(state)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    blocked = ~causal_mask(5) if causal else None  # torch's mask says where not to look
    with torch.no_grad():
        y, weights = theirs(x, x, x, attn_mask=blocked, average_attn_weights=False)
        our_y, our_weights = ours(x, is_causal=causal), ours.weights(x, is_causal=causal)
    torch.testing.assert_close(our_y, y, rtol=0, atol=1e-12)
    torch.testing.assert_close(our_weights, weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_grouped_heads_equal_full_heads_with_repeated_keys_and_values(n_kv_heads):
    H, D = 4, 2
    grouped = random_attention(d_model=8, n_heads=H, n_kv_heads=n_kv_heads, bias=True)
    full = random_attention(d_model=8, n_heads=H, bias=True, seed=1)
    weight = grouped.qkv.weight.unflatten(0, (-1, D))  # (heads, D, C): queries, then keys, then values
    bias = grouped.qkv.bias.unflatten(0, (-1, D))
    source = [*range(H)]
    source += [H + h * n_kv_heads // H for h in range(H)]
    source += [H + n_kv_heads + h * n_kv_heads // H for h in range(H)]
    with torch.no_grad():
        full.qkv.weight.copy_(weight[source].flatten(0, 1))
        full.qkv.bias.copy_(bias[source].flatten())
        full.out.load_state_dict(grouped.out.state_dict())
        x = torch.randn(2, 5, 8, dtype=torch.float64)
        torch.testing.assert_close(grouped(x, is_causal=True), full(x, is_causal=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_the_output_is_mixed_with_the_weights(n_kv_heads, qk_norm, rotary, kind):
    layer = random_attention(d_model=16, n_heads=4, n_kv_heads=n_kv_heads, qk_norm=qk_norm)
    options = dict(mask=make_mask(kind, 5, 5), is_causal=kind == "causal")
    if rotary:
        options["rotary"] = rotary_angles(5, 4)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    with torch.no_grad():
        weights = layer.weights(x, **options)
        torch.testing.assert_close(
            layer(x, **options), mixed_by_weights(layer, x, **options), rtol=0, atol=1e-12
        )
    assert weights.shape == (2, 4, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_qk_norm_makes_the_output_independent_of_the_size_of_queries_and_keys():
    sizes = []
    for qk_norm in (False, True):
        layer = random_attention(d_model=8, n_heads=2, qk_norm=qk_norm)
        x = torch.randn(1, 4, 8, dtype=torch.float64)
        with torch.no_grad():
            before = layer(x)
            layer.qkv.weight[:16] *= 7  # the rows that make queries and keys
            sizes.append((layer(x) - before).abs().max().item())
    assert sizes[0] > 1e-3
    assert sizes[1] < 1e-12


@pytest.mark.parametrize(("d_head", "n_kv_heads"), [(2, 4), (5, 2), (16, 1)])
def test_heads_of_another_width_are_heads_one_by_one(d_head, n_kv_heads):
    H, D = 4, d_head
    layer = random_attention(d_model=10, n_heads=H, n_kv_heads=n_kv_heads, d_head=D, bias=True)
    x = torch.randn(2, 5, 10, dtype=torch.float64)
    rows, bias = layer.qkv.weight.unflatten(0, (-1, D)), layer.qkv.bias.unflatten(0, (-1, D))
    made = [x @ rows[i].T + bias[i] for i in range(H + 2 * n_kv_heads)]  # queries, then keys, then values
    heads = []
    for h in range(H):
        shared = h * n_kv_heads // H
        q, k, v = made[h], made[H + shared], made[H + n_kv_heads + shared]
        heads.append(F.scaled_dot_product_attention(q, k, v, is_causal=True))
    expected = torch.cat(heads, dim=-1) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x, is_causal=True), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm_eps", [1e-6, 0.5])
def test_qk_norm_divides_by_the_root_mean_square_and_eps(norm_eps):
    layer = random_attention(d_model=8, n_heads=2, qk_norm=True, norm_eps=norm_eps)
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    raw = (x @ layer.qkv.weight.T).unflatten(-1, (6, 4)).transpose(1, 2)  # (B, 6, T, D)
    for made, parts, norm in zip(
        layer.split_heads(x), raw.split(2, dim=1), (layer.q_norm, layer.k_norm, None), strict=True
    ):
        size = (parts.square().mean(-1, keepdim=True) + norm_eps).sqrt()
        torch.testing.assert_close(
            made, parts if norm is None else parts / size * norm.weight, rtol=0, atol=1e-12
        )


def test_without_mask_permuted_tokens_give_permuted_outputs():
    layer = random_attention(d_model=8, n_heads=2)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    order = torch.tensor([5, 2, 0, 3, 1, 4])
    with torch.no_grad():
        torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


def test_a_later_token_changes_nothing_earlier_and_something_from_there_on():
    layer = random_attention(d_model=8, n_heads=2)
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 3] += 1.0
    with torch.no_grad():
        difference = (layer(x, is_causal=True) - layer(changed, is_causal=True)).abs().amax(dim=(0, 2))
    assert (difference[:3] < 1e-12).all()
    assert (difference[3:] > 1e-6).all()


def test_dropout_works_in_training_and_not_in_evaluation():
    layer = random_attention(d_model=8, n_heads=2, dropout=0.5)
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x))
        layer.train()
        assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(d_model=10, n_heads=3),
            r"d_model=10 does not split into n_heads=3 .*divides the width, or give d_head",
        ),
        (dict(d_model=8, n_heads=0), r"d_model=8 does not split into n_heads=0 .*divides the width"),
        (dict(d_model=8, n_heads=4, n_kv_heads=3), r"n_heads=4 .*n_kv_heads=3 .*divides n_heads"),
        (dict(d_model=8, n_heads=4, n_kv_heads=0), r"n_heads=4 .*n_kv_heads=0 .*divides n_heads"),
    ],
)
def test_impossible_heads_name_the_numbers_and_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**options)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_a_mask_of_whole_numbers_is_refused_in_every_way_to_attend(dtype):
    """Tokenizers give such masks; added to the scores, 0 and 1 hide nothing."""
    layer, x, mask = MultiHeadAttention(d_model=8, n_heads=2), torch.randn(1, 3, 8), causal_mask(3)
    for attend in (
        lambda mask: scaled_dot_product_attention(x, x, x, mask),
        lambda mask: layer(x, mask=mask),
        lambda mask: layer.weights(x, mask=mask),
    ):
        with pytest.raises(ValueError, match=r"a mask of torch\.u?int\d+ .*: give mask\.bool\(\)"):
            attend(mask.to(dtype))
        assert torch.equal(attend(mask.to(dtype).bool()), attend(mask))


@pytest.mark.parametrize("mask_dtype", [torch.float32, torch.bfloat16])
def test_in_bfloat16_a_float_mask_of_either_precision_hides_with_and_without_gradients(mask_dtype):
    layer, x = MultiHeadAttention(d_model=8, n_heads=2).bfloat16(), torch.randn(1, 3, 8).bfloat16()
    mask = torch.zeros(3, 3, dtype=mask_dtype).masked_fill(~causal_mask(3), float("-inf"))
    with torch.no_grad():
        expected = layer(x, mask=causal_mask(3))
        assert torch.equal(layer(x, mask=mask), expected)
    torch.testing.assert_close(layer(x, mask=mask), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("method", ["forward", "weights"])
def test_layer_refuses_two_masks(method):
    layer = MultiHeadAttention(d_model=8, n_heads=2)
    with pytest.raises(ValueError, match=r"either mask or is_causal=True; combine them"):
        getattr(layer, method)(torch.zeros(1, 3, 8), mask=causal_mask(3), is_causal=True)


# --- KVCache -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 4], [2, 2, 2, 1], [5, 1, 1], [1, 6]])
def test_decoding_in_chunks_equals_one_pass(chunks, n_kv_heads):
    layer = random_attention(d_model=16, n_heads=4, n_kv_heads=n_kv_heads)
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    cos, sin = rotary_angles(7, 4)
    cache = KVCache(2, n_kv_heads, 10, 4, dtype=torch.float64)
    outputs, start = [], 0
    with torch.no_grad():
        for size in chunks:
            end = start + size
            options = dict(is_causal=True, rotary=(cos[start:end], sin[start:end]), cache=cache)
            outputs.append(layer(x[:, start:end], **options))
            start = end
            assert cache.length == end
        full = layer(x, is_causal=True, rotary=(cos, sin))
    torch.testing.assert_close(torch.cat(outputs, dim=1), full, rtol=0, atol=1e-12)


def test_cache_returns_what_was_stored_in_order():
    cache = KVCache(1, 2, 5, 3)
    k, v = torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3)
    cache.append(k[:, :, :2], v[:, :, :2])
    all_k, all_v = cache.append(k[:, :, 2:], v[:, :, 2:])
    assert torch.equal(all_k, k)
    assert torch.equal(all_v, v)


def test_full_cache_names_both_lengths_and_stays_as_it_was():
    cache = KVCache(1, 1, 4, 2)
    cache.append(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(ValueError, match=r"holds 4 positions and 5 were asked for: make it longer"):
        cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert cache.length == 3
