"""Analysis of the training metrics: the best voice, overtraining and failures."""
