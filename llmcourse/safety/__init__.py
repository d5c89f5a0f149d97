"""Harm measured on models of our own, and mended: filters, memory, privacy, poison, attacks."""
