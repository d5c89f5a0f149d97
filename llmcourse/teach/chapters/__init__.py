"""One package for each notebook, with its name: what only that chapter needs."""
