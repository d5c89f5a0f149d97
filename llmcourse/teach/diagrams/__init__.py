"""Schematic pictures in one style: `draw` has the primitives, each other module the pictures of a topic."""
