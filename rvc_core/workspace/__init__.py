"""The experiment folder: its paths and file formats."""
