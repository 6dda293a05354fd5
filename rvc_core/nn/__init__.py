"""The networks, without file access. Attribute names are the keys of RVC's state dicts."""
