"""From recordings to everything that training reads: survey, clips, features, index."""
