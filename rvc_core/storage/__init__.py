"""Experiments on storage that outlives the machine: save, find, restore, and save while training."""
