"""Weights that are not part of the package: the list, the download, and an archive for machines without a network."""
