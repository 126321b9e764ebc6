"""Compression of trained networks: pruning, quantization, engines of prediction."""
