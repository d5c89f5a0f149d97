"""The room of `05c_tuning`."""
