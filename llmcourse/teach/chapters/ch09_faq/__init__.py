"""What the notebook 09_faq needs: laws over sizes, what fits into a memory, tables of one's own."""
