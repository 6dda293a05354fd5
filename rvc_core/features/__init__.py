"""What the networks read: pitch, content features, and the index that mixes them."""
