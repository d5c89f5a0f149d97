"""The same results with more speed: read last, the core runs without it."""
