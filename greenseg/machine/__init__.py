"""The resources and restrictions of this machine: cores, GPUs, GPU limits and clocks, and checks before a run."""
