"""From a recording and a voice to a converted recording."""
