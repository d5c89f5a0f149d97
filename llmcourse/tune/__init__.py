"""What decides a run: recipes, search, rates, batch sizes, and what they cost."""
