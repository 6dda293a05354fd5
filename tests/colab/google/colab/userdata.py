"""Secrets; only a person in the browser has them."""

from . import errors


class SecretNotFoundError(errors.Error):
    """There is none of this name."""


def get(key):
    """The secret of this name."""
    raise SecretNotFoundError(key)
