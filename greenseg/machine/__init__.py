"""What this machine is and can: cores, GPUs, limits and clocks of GPUs, and what it cannot run."""
