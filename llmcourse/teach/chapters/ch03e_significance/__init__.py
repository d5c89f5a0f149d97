"""Chapter 3e, significance: intervals, paired tests, power, and search on a budget."""
