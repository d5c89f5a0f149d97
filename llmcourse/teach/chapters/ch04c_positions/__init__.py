"""The room of `04c_positions`."""
