"""The room of `03e_significance`."""
