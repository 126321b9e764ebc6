"""Searches replayed on recorded grids, against the whole grid and simpler ways to spend the same joules."""
