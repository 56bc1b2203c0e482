"""Hyperparameter search with Optuna: studies of an entry point's settings, in many processes."""
