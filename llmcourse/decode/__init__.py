"""Ways to write other than token after token: beam search, constraints, speculation."""
