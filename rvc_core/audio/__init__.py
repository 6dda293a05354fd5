"""Sound: the Audio value, finding and cutting recordings, and measuring their quality."""
