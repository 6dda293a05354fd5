"""What an output cell can show."""

SERVED = []


def serve_kernel_port_as_iframe(port, path="/", width="100%", height="400", cache_in_notebook=False):
    """Show a page of this machine."""
    SERVED.append((port, path))
