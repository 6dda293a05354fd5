"""Its errors."""


class Error(Exception):
    """Root of what google.colab raises of its own."""


class MessageError(Error):
    """The browser refused, or nobody was there to answer (it lives in google.colab._message)."""
