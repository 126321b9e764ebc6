"""Run directories: records, the index of all directories, and summaries."""
