"""Measurement of prediction with trained networks: energy, CPU seconds, latency, size. See `measure.measure`."""

SECONDS = 20.0
"""The shortest window of a measurement without caveats: counters have periods, and clocks and caches settle."""
