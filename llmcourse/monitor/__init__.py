"""A run under observation: logs, records, what is normal and what is wrong."""
