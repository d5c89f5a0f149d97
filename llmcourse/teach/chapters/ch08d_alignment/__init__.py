"""The room of `08d_alignment`."""
