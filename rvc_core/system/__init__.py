"""The machine: files, downloads, the platform, threads, and files that may be malicious."""
