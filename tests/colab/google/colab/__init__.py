"""A double of Colab's own package: what our notebooks call of it, with its signatures, and as unkind as it can be."""

from . import drive, errors, files, output, userdata  # noqa: F401
