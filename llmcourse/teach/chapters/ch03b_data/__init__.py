"""The room of `03b_data`."""
