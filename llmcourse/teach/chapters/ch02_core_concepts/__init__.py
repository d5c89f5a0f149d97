"""The room of `02_core_concepts`."""
