"""Voice files: find, publish, merge, share, describe, export."""
