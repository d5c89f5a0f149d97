"""The room of `06b_summarization`: its exercises and its pictures."""
