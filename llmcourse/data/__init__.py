"""Data: where it comes from (`manifest`, `sources`), made clean (`cleaning`), in batches (`batches`)."""
