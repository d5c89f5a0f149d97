"""The room of `05c_training_techniques`."""
