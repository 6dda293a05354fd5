"""Sound: the Audio value, where recordings are found and cut, and how good they are."""
