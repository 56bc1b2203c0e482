"""Operating system: files, inter-process locks, signals, processes, threads and processors."""
