"""The room of `00_start_here`."""
