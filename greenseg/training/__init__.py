"""Training of one run, from its settings to its record."""
