"""Search for the front of a grid at a part of its joules. Decides from curves alone; it knows no files and no runs."""
