"""Chapter 3e, evaluation: what the measures of the field see, and what they miss."""
