"""What an experiment's folder holds: every path and every file format in it."""
