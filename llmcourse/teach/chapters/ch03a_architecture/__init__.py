"""The room of `03a_architecture`."""
