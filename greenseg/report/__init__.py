"""From run directories to a decision: reading runs, the front, the table."""
