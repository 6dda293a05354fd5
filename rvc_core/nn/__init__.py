"""The networks: tensors in, tensors out, no files. Attribute names are those of RVC's state dicts."""
