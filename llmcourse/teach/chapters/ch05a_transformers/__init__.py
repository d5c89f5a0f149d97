"""Chapter 5a, transformers: a pretrained encoder becomes a judge of film reviews."""
