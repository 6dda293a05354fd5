"""Quality of a recording or a conversion: similarity, pitch, words, naturalness."""
