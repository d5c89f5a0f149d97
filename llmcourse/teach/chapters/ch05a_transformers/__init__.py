"""The room of `05a_transformers`."""
