"""The demo data set: scenes of eight classes, drawn by a program."""
