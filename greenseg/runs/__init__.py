"""What a run leaves behind: its directory, the index of all directories, and the summary of a record."""
