"""The room of `06a_translation`: its exercises and its pictures."""
