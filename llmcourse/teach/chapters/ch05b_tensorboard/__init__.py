"""The room of `05b_tensorboard`."""
