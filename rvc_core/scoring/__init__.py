"""What a recording or a conversion is worth: similarity, pitch kept, words, cleanness."""
