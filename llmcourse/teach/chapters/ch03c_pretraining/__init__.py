"""The room of `03c_pretraining`."""
