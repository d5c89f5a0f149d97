"""The room of `04a_attention`."""
