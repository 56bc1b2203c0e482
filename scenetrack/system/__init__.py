"""What the operating system is asked for: files, locks, signals, processes, cores."""
