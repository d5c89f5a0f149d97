"""Speed as ratios: ours and a known library, alternated in one run. Run `python -m benchmarks`."""
