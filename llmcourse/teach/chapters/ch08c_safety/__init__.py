"""The room of `08c_safety`."""
