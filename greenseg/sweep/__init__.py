"""From a YAML file to runs, and from runs to results."""
