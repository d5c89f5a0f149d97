"""The room of `03b_tokenizer`."""
