"""One file for each entry point: its method from top to bottom."""
