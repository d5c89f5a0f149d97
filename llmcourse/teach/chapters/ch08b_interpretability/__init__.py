"""The room of `08b_interpretability`."""
