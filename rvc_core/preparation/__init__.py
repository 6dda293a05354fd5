"""Prepare recordings for training: survey, clips, features, index."""
