"""Executes runs: a queue with its policy, and the executor that starts, watches and stops their processes."""
