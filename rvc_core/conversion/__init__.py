"""Conversion of a recording with a voice."""
