"""The room of `08a_efficiency`."""
