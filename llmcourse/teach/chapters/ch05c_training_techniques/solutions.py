"""Solutions of `05c_training_techniques`: a right answer to each exercise."""


def newton_schulz(matrix):
    """Five steps of the odd polynomial, after dividing by the matrix's norm."""
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x


def shifted_sum(token_ids, tables):
    """Add up tables[j][token j steps back]; before the text stands nothing."""
    x = tables[0][token_ids].clone()
    for j in range(1, len(tables)):
        x[:, j:] += tables[j][token_ids[:, :-j]]
    return x


SOLUTIONS = {
    "05c-orthogonalize": newton_schulz,
    "05c-shift": shifted_sum,
    "05c-sooner": 20.0,
}
