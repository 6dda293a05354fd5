"""What a training's history says: the best voice, overtraining, and the known failures."""
