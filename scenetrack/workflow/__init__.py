"""The steps that stages share, from the data set of a run to its finished methods."""
