"""The room of `05c_precision_and_speed`."""
