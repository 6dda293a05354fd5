"""Experiments on permanent storage: save, find, restore, and save during training."""
