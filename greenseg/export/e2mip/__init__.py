"""Submissions to the E2MIP challenge, which ranks segmentation quality against the energy of training and inference."""
