"""Networks by name. `greenseg.models.names` imports no torch; `greenseg.models.network` does."""
