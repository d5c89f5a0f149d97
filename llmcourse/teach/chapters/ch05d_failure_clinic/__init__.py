"""Chapter 5d, the failure clinic: what else its page needs."""
