"""Separate songs into stems: vocals and accompaniment, lead and backing, without reverb, without noise."""
