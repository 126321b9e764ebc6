"""Sweeps: the file format, its axes and grid, and the plan of runs."""
