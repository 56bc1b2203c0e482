"""Studies: Optuna searches the settings of an entry point, in any number of processes."""
