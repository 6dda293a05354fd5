"""The machine: files and downloads, which platform this is, threads, and files from strangers."""
