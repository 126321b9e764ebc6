"""Masks from trained networks: reading images, predicting, and bringing masks back to the geometry of the files."""
