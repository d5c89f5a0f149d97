"""Positions against formulas written with the math module, transformers' Llama, and geometry."""

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from llmcourse.positions import RotaryScaling, apply_rotary, rotary_angles, sinusoidal_positions


@pytest.mark.parametrize(
    ("n_positions", "d_model", "base"), [(20, 8, 10000.0), (7, 2, 10000.0), (9, 6, 50.0)]
)
def test_sinusoidal_equals_the_formula_of_the_paper(n_positions, d_model, base):
    table = sinusoidal_positions(n_positions, d_model, base)
    assert table.shape == (n_positions, d_model)
    assert table.dtype == torch.float32
    for position in range(n_positions):
        for i in range(d_model // 2):
            angle = position / base ** (2 * i / d_model)
            assert abs(table[position, 2 * i].item() - math.sin(angle)) < 1e-7
            assert abs(table[position, 2 * i + 1].item() - math.cos(angle)) < 1e-7


@pytest.mark.parametrize("k", [1, 5, 17])
def test_a_step_of_k_positions_is_one_rotation_wherever_it_starts(k):
    d_model = 10
    table = sinusoidal_positions(50, d_model).double()
    step = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(d_model // 2):
        angle = k / 10000.0 ** (2 * i / d_model)
        block = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        step[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor(block)
    torch.testing.assert_close(table[:-k] @ step.T, table[k:], rtol=0, atol=1e-6)


def test_sinusoidal_vectors_are_equally_long():
    lengths = sinusoidal_positions(100, 16).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full((100,), math.sqrt(8)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("d_head", [2, 8, 16])
def test_rotary_equals_llama_in_transformers(d_head, base):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=3 * d_head,
        num_attention_heads=3,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    q, k = torch.randn(2, 3, 40, d_head), torch.randn(2, 1, 40, d_head)
    their_cos, their_sin = LlamaRotaryEmbedding(config)(q, torch.arange(40)[None])
    their_q, their_k = apply_rotary_pos_emb(q, k, their_cos, their_sin)
    cos, sin = rotary_angles(40, d_head, base)
    torch.testing.assert_close(apply_rotary(q, cos, sin), their_q, rtol=0, atol=2e-5)
    torch.testing.assert_close(apply_rotary(k, cos, sin), their_k, rtol=0, atol=2e-5)


SCALINGS = [
    RotaryScaling(),  # Llama 3.1
    RotaryScaling(factor=32.0),  # Llama 3.2
    RotaryScaling(factor=1.0),
    RotaryScaling(factor=3.5, low_freq_factor=0.5, high_freq_factor=20.0, original_context=100),
]


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("d_head", [8, 64, 128])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_speeds_equal_llama3_in_transformers(scaling, d_head, base):
    rope = dict(
        rope_type="llama3", rope_theta=base, factor=scaling.factor,
        low_freq_factor=scaling.low_freq_factor, high_freq_factor=scaling.high_freq_factor,
        original_max_position_embeddings=scaling.original_context,
    )  # fmt: skip
    config = LlamaConfig(head_dim=d_head, max_position_embeddings=131072, rope_parameters=rope)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    plain = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    torch.testing.assert_close(scaling.scale(plain).float(), theirs, rtol=1e-5, atol=0)
    cos, sin = rotary_angles(3, d_head, base, start=100_000, scaling=scaling)
    angles = torch.arange(100_000, 100_003)[:, None].double() * scaling.scale(plain)  # in float64
    torch.testing.assert_close(cos, angles.cos().float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin, angles.sin().float(), rtol=0, atol=1e-6)


def test_scaling_keeps_fast_planes_and_divides_the_speed_of_slow_ones():
    scaling = RotaryScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=1000)
    turns = torch.tensor([50.0, 4.0, 2.5, 1.0, 0.1], dtype=torch.float64)  # in 1,000 positions
    speed = turns * 2 * math.pi / 1000
    ratio = scaling.scale(speed) / speed
    torch.testing.assert_close(ratio.tolist(), [1.0, 1.0, (1 + 1 / 8) / 2, 1 / 8, 1 / 8])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (dict(factor=0.5), "factor=0.5, original_context=8192: both must be at least 1"),
        (dict(factor=math.nan), "factor=nan"),
        (dict(original_context=0), "original_context=0"),
        (dict(low_freq_factor=4.0), r"low_freq_factor=4.0 must be above 0 and below high_freq_factor=4.0"),
        (dict(low_freq_factor=0), "low_freq_factor=0 must be above 0"),
    ],
)
def test_scaling_by_numbers_that_mean_nothing_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        RotaryScaling(**numbers)


def test_rotary_is_multiplication_by_a_complex_number_of_length_one():
    torch.manual_seed(0)
    T, D = 12, 6
    x = torch.randn(T, D, dtype=torch.float64)
    turned = apply_rotary(x, *rotary_angles(T, D))
    for position in range(T):
        for i in range(D // 2):
            angle = position / 10000.0 ** (2 * i / D)
            number = complex(x[position, i], x[position, i + D // 2])
            expected = number * complex(math.cos(angle), math.sin(angle))
            assert abs(turned[position, i].item() - expected.real) < 1e-6
            assert abs(turned[position, i + D // 2].item() - expected.imag) < 1e-6


def test_dot_products_depend_on_the_distance_only():
    torch.manual_seed(0)
    T, D = 30, 8
    q, k = torch.randn(D, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    cos, sin = rotary_angles(T, D)
    dots = apply_rotary(q.expand(T, D), cos, sin) @ apply_rotary(k.expand(T, D), cos, sin).T  # (T, T)
    for distance in range(T):
        diagonal = dots.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert dots[0].std() > 0.1  # and they do depend on it


def test_rotary_keeps_lengths():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 50, 8)
    turned = apply_rotary(x, *rotary_angles(50, 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(turned[..., 1:, :], x[..., 1:, :], atol=0.1)


def test_start_gives_the_later_rows_of_the_table():
    whole, later = rotary_angles(20, 6), rotary_angles(8, 6, start=12)
    assert torch.equal(whole[0][12:], later[0])
    assert torch.equal(whole[1][12:], later[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rotary_keeps_the_dtype(dtype):
    assert apply_rotary(torch.ones(3, 4, dtype=dtype), *rotary_angles(3, 4)).dtype == dtype


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match=r"d_model=5 is odd: .*use an even width"):
        sinusoidal_positions(3, 5)
    with pytest.raises(ValueError, match=r"d_head=7 is odd: .*use an even head width"):
        rotary_angles(3, 7)


def test_rotary_in_bfloat16_turns_as_in_float32_up_to_rounding():
    torch.manual_seed(0)
    x, angles = torch.randn(2, 9, 8), rotary_angles(9, 8)
    rounded = apply_rotary(x.bfloat16(), *angles)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), apply_rotary(x, *angles), rtol=0, atol=0.06)
