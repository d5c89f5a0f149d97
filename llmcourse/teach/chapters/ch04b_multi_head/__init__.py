"""The room of `04b_multi_head`."""
