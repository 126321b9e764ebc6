"""Networks, built from their names (`greenseg.model_names`). `network` imports torch."""
