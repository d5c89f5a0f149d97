"""The room of `03d_finetuning`."""
