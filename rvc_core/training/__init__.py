"""Training: the loop and its step, precision, memory, several GPUs, and the process that runs it."""
