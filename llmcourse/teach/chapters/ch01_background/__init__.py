"""The room of `01_background`."""
