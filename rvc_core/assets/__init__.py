"""Weights that do not come with the package: which there are, how to get them, an archive for offline machines."""
