"""The comparison of predicted masks with reference masks, independent of any run."""
