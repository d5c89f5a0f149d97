"""Solutions of `04c_positions`: a right answer to each exercise."""

import math

import torch


def position_table(n_positions, d_model):
    """The (T, C) table: sin(pos / 10000^(2i/C)) in column 2i, the cosine in column 2i + 1."""
    table = torch.zeros(n_positions, d_model)
    for pos in range(n_positions):
        for i in range(d_model // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            table[pos, 2 * i], table[pos, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


def shift_matrix(k, d_model):
    """The (C, C) matrix M with PE(pos + k) = M PE(pos) for every pos: a rotation in each pair."""
    matrix = torch.zeros(d_model, d_model)
    for i in range(d_model // 2):
        angle = k / 10000 ** (2 * i / d_model)
        c, s = math.cos(angle), math.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[c, s], [-s, c]])
    return matrix


def rotate(x, angles):
    """Turn each row of x (T, 2) by its angle."""
    c, s = angles.cos(), angles.sin()
    return torch.stack([x[:, 0] * c - x[:, 1] * s, x[:, 1] * c + x[:, 0] * s], dim=-1)


SOLUTIONS = {
    "04c-table": position_table,
    "04c-wavelength": round(2 * math.pi * 100, 1),
    "04c-shift": shift_matrix,
    "04c-rotate": rotate,
}
