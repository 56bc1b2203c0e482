"""The demo data set: procedurally drawn scenes of the eight MIT classes."""
