"""Data: where it comes from (`manifest`), the texts (`corpora`), and the batches made of them."""
