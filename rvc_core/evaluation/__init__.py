"""How well a voice converts: outputs paired with sources, measured and compared by ear."""
