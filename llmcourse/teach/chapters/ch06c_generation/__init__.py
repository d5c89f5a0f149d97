"""The room of `06c_generation`."""
