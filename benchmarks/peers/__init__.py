"""Other sweepers, each training the same runs by the same function; `benchmarks.sweep` starts them."""
