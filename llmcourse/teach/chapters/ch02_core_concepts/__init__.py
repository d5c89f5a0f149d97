"""Chapter 2, core concepts: one task three ways, and what pretraining is worth."""
