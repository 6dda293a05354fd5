"""Inputs of the networks: pitch, content features, and the index."""
