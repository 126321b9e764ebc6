"""Other tools for sweeps, which train the same runs with the same function; `benchmarks.sweep` starts them."""
