"""Voice files: find, publish, merge, share, describe and export them."""
